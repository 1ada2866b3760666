"""What one core loads, photographs or latents of 512 px, against what a GPU trains on.

A core's rate is in CPU seconds, checksums included: other load does not change it. A GPU's is an
estimate: FLOPs of the paper's step, counted, over the dense peak of moebius/assets/machines.yaml,
of which the share that stands there is assumed to be reached; and at the whole peak, which nothing
exceeds.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import torch
from PIL import Image
from safetensors.torch import save
from torch.utils.data import DataLoader

from moebius.data.manifest import read_records
from moebius.data.photographs import builtin_paths
from moebius.data.samples import InpaintingSamples, SampleSpec
from moebius.data.shards.dataset import StoredLatents
from moebius.data.shards.index import describe_encoding, shard_name
from moebius.data.shards.storage import open_storage
from moebius.data.shards.writer import STORED, claim, finish
from moebius.distill.cost import sample_cost, update_cost
from moebius.models.codec import load_codec
from moebius.planning.machines import load_machine
from moebius.planning.networks import Networks
from moebius.recipes import read_recipe

PHOTOGRAPHS, MASKS, SHARD, BATCH, SIZE = 48, 16, 128, 16, 512
MACHINES = ("L40S", "H200")


def write_photographs(folder: Path) -> InpaintingSamples:
    """JPEGs of 1024 px on their short side; an epoch reads each once, so none is cached."""
    paths = builtin_paths("train")
    for n in range(PHOTOGRAPHS):
        image = Image.open(paths[n % len(paths)]).convert("RGB")
        scale = 1024 / min(image.size)
        large = image.resize((round(scale * image.width), round(scale * image.height)))
        large.save(folder / f"{n}.jpg", quality=90)
    return InpaintingSamples(read_records(folder), SampleSpec(size=SIZE))


def write_latents(place: str, samples: InpaintingSamples) -> None:
    """A set of random latents, of the shapes that encoding these photographs gives."""
    storage, side = open_storage(place), SIZE // 8
    encoding = describe_encoding(samples, load_codec("builtin"), "made up", MASKS, SHARD)
    for number in claim(storage, encoding):
        count = len(encoding.numbers(number))
        shapes = {
            "clean": (2, 4, side, side),
            "masked": (2, 4, side, side),
            "mask": (1, side, side),
        }
        tensors = {
            key: torch.rand(count, *shapes.get(key, ())).to(dtype) for key, dtype in STORED.items()
        }
        data = save(tensors)
        storage.write(shard_name(number, data), data)
    finish(storage, encoding)


def rate(loader: Callable[[], DataLoader]) -> float:
    """Samples a CPU second."""
    start, count = time.process_time(), 0
    for batch in loader():
        count += len(batch["category"])
    return count / (time.process_time() - start)


def consumption(name: str, latents: str | None, share: float | None = None) -> float:
    """Samples a second that a device trains on, by the paper's recipe on 16 of them."""
    changes = {"data.source": "photographs", "distill.perceptual_weights": "random"}
    recipe, networks = read_recipe("paper", {**changes, "data.latents": latents}), Networks()
    student, machine = networks.student(recipe), load_machine(name)
    machine = machine if share is None else replace(machine, utilisation=share)
    sample = sample_cost(recipe, student, networks.teacher(recipe), networks.codec(recipe))
    updates = 16 / recipe.training.global_batch
    return 1 / (machine.seconds(sample) + updates * machine.seconds(update_cost(recipe, student)))


def main() -> None:
    """Prints the rates of a core, and the cores that each GPU needs."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with TemporaryDirectory() as folder:
        (photographs := Path(folder) / "photographs").mkdir()
        samples, place = write_photographs(photographs), str(Path(folder) / "latents")
        write_latents(place, samples)
        decoded = rate(lambda: DataLoader(samples, BATCH, sampler=range(PHOTOGRAPHS)))
        stored = StoredLatents(place, seed=1)
        read = rate(lambda: DataLoader(stored, BATCH, sampler=range(2 * len(stored))))
    print(
        f"loading, {SIZE} px, one core: {decoded:.1f} photographs/s, {read:.0f} latents/s, "
        f"ratio {read / decoded:.0f}",
        flush=True,
    )
    for name in MACHINES:
        share = load_machine(name).utilisation
        for what, latents, core in (("photographs", None, decoded), ("latents", "stored", read)):
            likely, most = (consumption(name, latents, s) for s in (share, 1.0))
            print(
                f"{name} from {what}: {likely:.1f} samples/s at {share:.0%} of its peak "
                f"(estimate) take {likely / core:.3f} cores; "
                f"{most:.0f} at the whole peak, {most / core:.3f} cores",
                flush=True,
            )


if __name__ == "__main__":
    main()
