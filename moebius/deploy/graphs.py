"""The parts of a model as graphs: what each takes and gives, and modules that a tracer follows.

Three graphs make a picture: encoder, denoiser (once a step), decoder. Sizes are dynamic: the batch,
and the map in multiples of `multiple`, so that every stage halves evenly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moebius.inference.pipeline import InpaintPipeline
from moebius.inference.sampler import BACKGROUND, FOREGROUND
from moebius.models.codec import LatentCodec
from moebius.models.denoiser import Denoiser, category_ids
from moebius.models.latents import denoiser_input


@dataclass(frozen=True)
class Port:
    """An input or output of a graph, float32.

    Attributes:
        shape: numbers, and names of dynamic sizes: `batch`, `height`, `width` in pixels, `rows`,
            `columns` in latent cells.
        meaning: for the manifest.
    """

    name: str
    shape: tuple[int | str, ...]
    meaning: str


@dataclass(frozen=True)
class Graph:
    """A part of the model that becomes a file.

    Attributes:
        module: in eval mode.
        multiple: what latent sides must be a multiple of.
        factor: pixels for each latent cell along a side.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    output: Port
    multiple: int
    factor: int

    def example(self, batch: int, rows: int, columns: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of a size, in latent cells."""
        generator = torch.Generator().manual_seed(seed)
        sizes = {
            "batch": batch,
            "rows": rows,
            "columns": columns,
            "height": rows * self.factor,
            "width": columns * self.factor,
        }
        drawn = []
        for port in self.inputs:
            shape = [sizes[side] if isinstance(side, str) else side for side in port.shape]
            values = torch.rand(shape, generator=generator)
            if port.name == "mask":
                values = values.round()
            elif port.name == "timestep":
                values = (values * 999).round()
            drawn.append(values if port.name in ("mask", "timestep") else 2 * values - 1)
        return tuple(drawn)

    def sides(self) -> tuple[int, int]:
        """Two unequal latent sides to trace at."""
        return 2 * self.multiple, 3 * self.multiple


class DenoiserGraph(nn.Module):
    """Both branches of guidance in one call: u + g (c - u), unconditional ones first."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        ids = category_ids(
            torch.tensor([FOREGROUND, BACKGROUND]), denoiser.architecture.context_length
        )
        self.register_buffer("ids", ids, persistent=False)

    def forward(
        self, latents: Tensor, mask: Tensor, masked_latents: Tensor, timestep: Tensor, scale: Tensor
    ) -> Tensor:
        """See `model_graphs` for the ports."""
        batch = latents.shape[0]
        ids = self.get_buffer("ids").unsqueeze(1).expand(-1, batch, -1).flatten(0, 1)
        sample = denoiser_input(latents, mask, masked_latents)
        noise = self.denoiser(torch.cat([sample, sample]), timestep, ids).sample
        return noise[:batch] + scale * (noise[batch:] - noise[:batch])


class EncoderGraph(nn.Module):
    """The hole goes grey, then the mode of the posterior: `LatentCodec.encode` in one pass.

    The codec itself cuts large batches into parts, as many as the traced size would need.
    """

    def __init__(self, codec: LatentCodec) -> None:
        super().__init__()
        self.vae = codec.vae
        self.scale: float = codec.vae.config["scaling_factor"]
        self.shift: float = codec.vae.config["shift_factor"] or 0.0

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """See `model_graphs` for the ports."""
        posterior = self.vae.encode(image * (1 - mask)).latent_dist
        return (posterior.mean - self.shift) * self.scale


class DecoderGraph(nn.Module):
    """Latents to pixels."""

    def __init__(self, codec: LatentCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latents: Tensor) -> Tensor:
        """See `model_graphs` for the ports."""
        return self.codec.decode(latents)


def model_graphs(pipeline: InpaintPipeline) -> tuple[Graph, Graph, Graph]:
    """Encoder, denoiser and decoder of a pipeline."""
    denoiser, codec = pipeline.denoiser.eval(), pipeline.codec
    channels = codec.channels
    multiple = 2 ** (len(denoiser.architecture.stages) - 1)
    cells = ("rows", "columns")
    image = ("batch", 3, "height", "width")

    def latents(name: str, meaning: str) -> Port:
        return Port(name, ("batch", channels, *cells), f"{meaning}, scaled")

    encoder = Graph(
        "encoder",
        EncoderGraph(codec),
        (
            Port("image", image, "RGB in [-1, 1]"),
            Port("mask", ("batch", 1, "height", "width"), "1 = hole; the image is greyed there"),
        ),
        latents("masked_latents", "latents of the image without its hole"),
        multiple,
        codec.factor,
    )
    noise_graph = Graph(
        "denoiser",
        DenoiserGraph(denoiser),
        (
            latents("latents", "noisy latents"),
            Port("mask", ("batch", 1, *cells), "1 = hole, the top-left pixel of each cell"),
            latents("masked_latents", "the encoder's output"),
            Port("timestep", (), "0 to 999"),
            Port("guidance_scale", (), "1 = none"),
        ),
        latents("noise", "guided prediction of the noise"),
        multiple,
        codec.factor,
    )
    decoder = Graph(
        "decoder",
        DecoderGraph(codec),
        (latents("latents", "latents"),),
        Port("image", image, "RGB in [-1, 1]"),
        multiple,
        codec.factor,
    )
    return encoder, noise_graph, decoder
