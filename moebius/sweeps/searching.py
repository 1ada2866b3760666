"""Which trials of a search come next: Optuna, from its journal in the sweep's folder.

A sweep that was killed goes on by its folder; Ray's own state of it is not needed.
"""

import json
import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from moebius.config import Sweep
from moebius.config.sweep import Space
from moebius.data.copies import bring, publish
from moebius.recipes import teacher_recipe
from moebius.storage import LEFT_THERE
from moebius.sweeps.standings import costs
from moebius.sweeps.trials import DURING_TRAINING, Point, Trial, describe, plan_trial

REFUSED = "refused"
"""Attribute of a point that no recipe can be made of."""


class Study:
    """The points of a search, kept in `out/search.journal`; each is proposed once and told once.

    Args:
        sweep: with a `search`.
        out: the sweep's folder.

    Raises:
        ValueError: Optuna is missing, or the folder holds a search of another space.
    """

    def __init__(self, sweep: Sweep, out: Path) -> None:
        if find_spec("optuna") is None:
            raise ValueError("a search needs Optuna: pip install 'moebius-inpainting[search]'")
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalStorage
        from optuna.study import StudyDirection

        assert sweep.search is not None
        self.sweep, self.out, self.search = sweep, out, sweep.search
        # Sorted, as they are drawn: the order of a file's keys must not matter.
        spaces = sorted(self.search.space.items())
        self.distributions = {key: _distribution(space) for key, space in spaces}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        out.mkdir(parents=True, exist_ok=True)
        directions = [
            StudyDirection.MAXIMIZE if sweep.objective.mode == "max" else StudyDirection.MINIMIZE
        ]
        if self.search.second_objective is not None:
            directions.append(StudyDirection.MINIMIZE)
        self.journal = out / "search.journal"
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self.journal))),
            study_name=sweep.name,
            directions=directions,
            load_if_exists=True,
        )
        known = self.study.get_trials(deepcopy=False)
        if any(trial.distributions != self.distributions for trial in known) or (
            self.study.directions != directions
        ):
            raise ValueError(
                f"{out} holds a search of another space or objective; choose another --out, or "
                "remove that folder"
            )

    def trials(self) -> dict[int, Trial]:
        """Every point that was proposed and not refused, by its number."""
        known = self.study.get_trials(deepcopy=False)
        return {t.number: self._plan(t) for t in known if REFUSED not in t.user_attrs}

    def folders(self) -> list[tuple[int, Path]]:
        """Where unfinished points and those to come have their trials, by number."""
        total = len(self.study.get_trials(deepcopy=False)) + self.remaining
        todo = [*self.unfinished(), *range(total - self.remaining, total)]
        return [(number, self.out / "trials" / str(number)) for number in todo]

    def refused(self) -> list[str]:
        """Points that no recipe can be made of, and why."""
        known = self.study.get_trials(deepcopy=False)
        return [t.user_attrs[REFUSED] for t in known if REFUSED in t.user_attrs]

    def unfinished(self) -> list[int]:
        """Numbers of points that were proposed and not told."""
        known = self.study.get_trials(deepcopy=False)
        return [trial.number for trial in known if not trial.state.is_finished()]

    @property
    def remaining(self) -> int:
        """Points still to be proposed."""
        return max(0, self.search.trials - len(self.study.get_trials(deepcopy=False)))

    def propose(self) -> tuple[int, Trial] | None:
        """A new point's trial, from what was told so far; `None` once there are enough."""
        from optuna.trial import TrialState

        while self.remaining:
            # Drawn aside and kept by one record: a process that is killed leaves no half of one.
            aside = self._aside()
            asked = aside.ask(self.distributions)
            trial: Trial | None = None
            try:
                trial = self._plan(asked)
            except ValueError as error:
                asked.set_user_attr(REFUSED, str(error))
                aside.tell(asked, state=TrialState.FAIL)
            self.study.add_trial(aside.trials[asked.number])
            publish(self.journal)  # before its trial has a folder
            if trial is not None:
                return asked.number, trial
        return None

    def tell(self, number: int, trial: Trial | None) -> None:
        """How a point's trial ended: with its score, stopped, or (None, too) failed."""
        from optuna.trial import TrialState

        if trial is not None:
            bring(trial.folder, LEFT_THERE)
        result = None if trial is None else trial.result
        values = None if trial is None or result is None else self._values(trial, result)
        if values is not None and all(map(math.isfinite, values)):
            self.study.tell(number, values)
        elif trial is not None and trial.stopped is not None:
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, state=TrialState.FAIL)
        publish(self.journal)

    def catch_up(self) -> None:
        """Tells what a process that was killed could not."""
        trials = self.trials()
        for number in self.unfinished():
            if trials[number].result is not None or trials[number].stopped is not None:
                self.tell(number, trials[number])

    def _aside(self) -> Any:
        """What is known so far, in memory, with a sampler for the next point.

        It draws from (seed, the point's number) and what was told, whichever process asks.
        """
        import optuna

        known = self.study.get_trials(deepcopy=False)
        drawn = np.random.SeedSequence([self.search.seed, len(known)]).generate_state(1)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.search.startup, seed=int(drawn[0]), constant_liar=True
        )
        aside = optuna.create_study(sampler=sampler, directions=self.study.directions)
        aside.add_trials(known)
        return aside

    def _plan(self, trial: Any) -> Trial:
        spaces = self.search.space.items()
        point = {key: _value(space, trial.params[key]) for key, space in spaces}
        label = f"{trial.number}: {describe(point)}"
        return plan_trial(self.sweep, self.out, Point(label, point, str(trial.number)))

    def _values(self, trial: Trial, result: Mapping[str, Any]) -> list[float]:
        values = [float(result[self.sweep.objective.metric])]
        if self.search.second_objective is not None:
            values.append(costs(trial.recipe)[self.search.second_objective])
        return values


def proposals(study: Study, make_job: Callable[[Trial], dict[str, Any]]) -> Any:
    """What Ray Tune asks for its next trial: first those that were cut short, then new ones."""
    from ray.tune.search import Searcher

    class Proposals(Searcher):
        """Its state is the study's, and not Ray's to keep."""

        def __init__(self) -> None:
            super().__init__()
            trials = study.trials()
            self.waiting = [(number, trials[number]) for number in study.unfinished()]
            self.running: dict[str, tuple[int, Trial]] = {}

        def suggest(self, trial_id: str) -> Any:
            found = self.waiting.pop(0) if self.waiting else study.propose()
            if found is None:
                return Searcher.FINISHED
            self.running[trial_id] = found
            return {"job": make_job(found[1])}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            study.tell(*self.running.pop(trial_id))

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).write_text("")

        def restore(self, checkpoint_path: str) -> None:
            raise AssertionError("a sweep is gone on with by its folder")

    return Proposals()


def check_space(sweep: Sweep, out: Path) -> None:
    """Tries every choice and both ends of every range by themselves, before anything runs.

    Raises:
        ValueError: naming the key and the value, or an objective that a search cannot learn from.
    """
    assert sweep.search is not None
    metric = sweep.objective.metric
    if metric not in DURING_TRAINING and not metric.startswith("loss/"):
        raise ValueError(
            f"search: it learns from what a run reports of itself, not from {metric!r}; set "
            f"objective.metric to {', '.join(DURING_TRAINING)} or a loss such as loss/task"
        )
    for key, space in sweep.search.space.items():
        values = space.choice or space.uniform or space.loguniform or space.integers
        for value in values or ():
            trial = plan_trial(sweep, out, Point(f"{key}={value}", {key: value}))
            if teacher_recipe(trial.recipe) is not None:
                raise ValueError(
                    f"search: {trial.label} needs the teacher that the recipe trains, and the "
                    "recipe's own losses do not: put coarse or fine into recipe.distill.losses"
                )


def _distribution(space: Space) -> Any:
    from optuna import distributions

    if space.choice is not None:
        # As text: Optuna keeps plain values only, and a choice may be a list or a mapping.
        return distributions.CategoricalDistribution([json.dumps(v) for v in space.choice])
    if space.integers is not None:
        return distributions.IntDistribution(*space.integers)
    low, high = space.uniform or space.loguniform or (0.0, 1.0)
    return distributions.FloatDistribution(low, high, log=space.loguniform is not None)


def _value(space: Space, value: Any) -> Any:
    return json.loads(value) if space.choice is not None else value
