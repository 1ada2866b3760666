"""TensorBoard: event files in the run's folder."""

from torch.utils.tensorboard import SummaryWriter

from moebius.config import Recipe
from moebius.distill.run_folder import RunFolder


class TensorBoardTracker:
    """Writes `tensorboard/`."""

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        self.writer = SummaryWriter(str(folder.tensorboard))

    def log(self, metrics: dict[str, float]) -> None:
        """One scalar a metric."""
        for key, value in metrics.items():
            self.writer.add_scalar(key, value, int(metrics["step"]))

    def close(self, finished: bool) -> None:
        """Writes out what is left; event files know no state."""
        self.writer.close()
