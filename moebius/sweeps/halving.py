"""Which trials of a sweep go on: Ray's ASHA, from what lies in the runs' `metrics.jsonl`.

A sweep that was killed goes on by its folder; Ray's own state of it is not needed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from moebius.config import Sweep
from moebius.data.copies import open_place, publish
from moebius.distill.run_folder import RunFolder, write_text
from moebius.restarts import newest_step
from moebius.sweeps.standings import METRICS
from moebius.sweeps.trials import Trial, early_metric


def halving(sweep: Sweep, trials: Sequence[Trial], steps: int) -> Any:
    """Ray's ASHA by the sweep's rules, which remembers what earlier processes have run.

    Args:
        sweep: with the scheduler `asha`.
        trials: all of the sweep's so far.
        steps: of its longest trial.
    """
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    class Halving(ASHAScheduler):
        """By trials' labels, which outlive Ray's ids; what it stops is marked in its folder."""

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            super().on_trial_add(tune_controller, _named(trial))

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
            job, step = trial.config["job"], result.get("step", 0)
            if step >= job["recipe"]["training"]["steps"]:  # nothing is left to be saved
                return TrialScheduler.CONTINUE
            action = super().on_trial_result(tune_controller, _named(trial), result)
            if action == TrialScheduler.STOP:
                mark_stopped(open_place(job["folder"], "driver"), result)
            return action

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
            """Nothing: the last step's score comes too late for any rung."""

        def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
            """Nothing: a trial that ends without a result leaves its rungs as they are."""

        def replay(self, trial: Trial) -> None:
            """Records what a trial has logged; what was decided then stays decided."""
            self.on_trial_add(None, _stand_in(trial))
            for line in _decided(trial):
                if line["step"] < trial.recipe.training.steps:
                    super().on_trial_result(None, _named(_stand_in(trial)), line)

    metric = early_metric(sweep)
    scheduler = Halving(
        time_attr="step",
        metric=metric,
        mode="min" if metric.startswith("loss/") else "max",
        max_t=max(steps, sweep.scheduler.grace),
        grace_period=sweep.scheduler.grace,
        reduction_factor=sweep.scheduler.reduction,
        stop_last_trials=False,
    )
    for trial in trials:
        scheduler.replay(trial)
    return scheduler


def mark_stopped(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes a trial's last scores as `stopped.json`, the sign that it is not gone on with."""
    known = {key: value for key, value in result.items() if key in METRICS}
    path = folder / "stopped.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"step": result["step"], **known}, indent=1))
    publish(path)


def _decided(trial: Trial) -> list[dict[str, float]]:
    """What a trial has logged, but for a last line that it was killed at before it had an answer.

    A trial that goes on takes the steps after its last checkpoint again, and asks again.
    """
    lines = RunFolder(trial.folder).read_metrics()
    if not lines or trial.result is not None or trial.stopped is not None:
        return lines
    passed = newest_step(trial.folder / "checkpoints")
    return lines if lines[-1]["step"] <= passed else lines[:-1]


def _named(trial: Any) -> Any:
    return SimpleNamespace(trial_id=trial.config["job"]["label"])


def _stand_in(trial: Trial) -> Any:
    return SimpleNamespace(config={"job": {"label": trial.label}})
