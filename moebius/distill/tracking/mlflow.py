"""MLflow, at MLFLOW_TRACKING_URI: a server, or a database such as sqlite:////data/mlflow.db."""

import logging
import os
import time
from typing import Any

from moebius.config import Recipe
from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking.identity import PROJECT, public_config, read_id, run_name, write_id

CHUNK = 100
"""Parameters a request; the most that MLflow takes."""
LONGEST = 6000
"""Characters of a parameter; the most that MLflow takes."""


class MlflowTracker:
    """One MLflow run of the experiment `moebius`, or of MLFLOW_EXPERIMENT_NAME.

    Raises:
        ValueError: no tracking URI is set, or MLflow refuses it.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise ValueError(
                "trackers: mlflow needs MLFLOW_TRACKING_URI, a server or a database such as "
                "sqlite:////data/mlflow.db"
            )
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        # It reports every table that it makes.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        try:
            self.client = MlflowClient(uri)
            self.run_id = read_id(folder, "mlflow") or self._create(recipe, folder)
            self.client.update_run(self.run_id, status="RUNNING")
        except (MlflowException, ImportError) as error:
            raise ValueError(f"trackers: mlflow: {' '.join(str(error).split())}") from None

    def _create(self, recipe: Recipe, folder: RunFolder) -> str:
        from mlflow.entities import Param

        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT)
        run_id = self.client.create_run(experiment, run_name=run_name(folder.path)).info.run_id
        parameters = [Param(k, v[:LONGEST]) for k, v in _flat(public_config(recipe)).items()]
        for first in range(0, len(parameters), CHUNK):
            self.client.log_batch(run_id, params=parameters[first : first + CHUNK])
        write_id(folder, "mlflow", run_id)
        return run_id

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        known = self.client.get_experiment_by_name(name)
        if known is None:
            try:
                return self.client.create_experiment(name)
            except MlflowException:  # another trial was quicker, or it is refused again
                known = self.client.get_experiment_by_name(name)
                if known is None:
                    raise
        return known.experiment_id

    def log(self, metrics: dict[str, float]) -> None:
        """One value a metric, in one request."""
        from mlflow.entities import Metric

        step, now = int(metrics["step"]), int(1000 * time.time())
        values = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=values)

    def close(self, finished: bool) -> None:
        """Ends the run as FINISHED or FAILED."""
        self.client.set_terminated(self.run_id, "FINISHED" if finished else "FAILED")


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Dotted keys to texts; what is empty or null is left out."""
    if isinstance(value, dict):
        items = [_flat(item, f"{prefix}{key}.") for key, item in value.items()]
        return {key: text for item in items for key, text in item.items()}
    return {} if value in (None, [], "") else {prefix.rstrip("."): str(value)}
