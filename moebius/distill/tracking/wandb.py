"""Weights & Biases; WANDB_MODE, WANDB_PROJECT, WANDB_API_KEY and the like are its own."""

import os
from uuid import uuid4

from moebius.config import Recipe
from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking.identity import PROJECT, public_config, read_id, run_name, write_id


class WandbTracker:
    """One W&B run, its files in the run's folder.

    It is given metrics and the recipe, nothing else: neither the command line nor the console,
    git remotes or the environment, any of which may hold secrets.

    Raises:
        ValueError: W&B refuses the run, such as without a login.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        import wandb

        run_id = read_id(folder, "wandb") or uuid4().hex
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                id=run_id,
                resume="allow",
                name=run_name(folder.path),
                dir=str(folder.path),
                config=public_config(recipe),
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    save_code=False,
                    x_disable_meta=True,
                    x_disable_machine_info=True,
                ),
            )
        except wandb.errors.Error as error:
            raise ValueError(f"trackers: wandb: {' '.join(str(error).split())}") from None
        write_id(folder, "wandb", run_id)
        # W&B's own step only grows, but a resumed run takes steps again.
        self.run.define_metric("*", step_metric="step")

    def log(self, metrics: dict[str, float]) -> None:
        """One row."""
        self.run.log(metrics)

    def close(self, finished: bool) -> None:
        """Ends the run; a failed one is shown as such."""
        self.run.finish(exit_code=0 if finished else 1)
