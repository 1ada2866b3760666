"""One of W workers of a short distillation run (started by test_world.py): RANK SIZE FOLDER."""

import sys
from pathlib import Path

import torch
from torch import distributed

sys.path.insert(0, str(Path(__file__).parent))

from test_trainer import gradients, make_trainer, recipe, weights

from moebius.distill.world import World


def main(rank: int, size: int, folder: Path) -> None:
    if size > 1:
        store = f"file://{folder / 'store'}"
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    world = World.current()
    assert (world.rank, world.size) == (rank, size)
    training = {"steps": 1, "batch_norm": "frozen"}
    trainer = make_trainer(folder / "run", recipe(training=training), world)
    trainer.run()
    torch.save((weights(trainer), gradients(trainer)), folder / f"rank{rank}.pt")
    if size > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
