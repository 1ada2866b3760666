"""TensorBoard's files, read back."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking.tensorboard import TensorBoardTracker
from moebius.recipes import read_recipe


def test_every_metric_is_a_scalar_at_its_step(tiny_recipe, tmp_path: Path):
    tracker = TensorBoardTracker(read_recipe(tiny_recipe), RunFolder(tmp_path))
    tracker.log({"step": 2, "loss/task": 0.5})
    tracker.log({"step": 4, "loss/task": 0.25})
    tracker.close(finished=True)
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss/task")] == [(2, 0.5), (4, 0.25)]
