"""The schema of sweeps: variations of a recipe, what is best, and what becomes of it."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from moebius.config.budget import parse_budget
from moebius.config.protocol import Scoring
from moebius.config.schema import Strict

TRIALS = 10_000
"""Most that a sweep may have; planning so many takes half a minute."""


def _budget(text: str) -> str:
    parse_budget(text)
    return text


class Experiment(Strict):
    """One listed trial: a label and what it changes."""

    label: str
    overrides: dict[str, Any] = {}
    """Dotted keys of the recipe to values."""


class Objective(Strict):
    """What the best trial is best at."""

    metric: str = "psnr_hole"
    mode: Literal["max", "min"] = "max"


class Promote(Strict):
    """What the winner is trained on with."""

    when: Annotated[str, AfterValidator(_budget)] | None = None
    """Only what stays within it may win, such as `params <= 250e6 and gmacs < 160`."""
    overrides: dict[str, Any] = {}
    """Dotted keys, such as `training.steps`."""
    warm_start: bool = True
    """Go on from the winner's last checkpoint (its best seed's); otherwise start anew."""


class Scheduler(Strict):
    """Which trials run to their end."""

    name: Literal["all", "asha"] = "all"
    """`all` of them, or those that successive halving (arXiv 1810.05934) leaves."""
    grace: PositiveInt = 100
    """ASHA: the step before which nothing is stopped."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """ASHA: one in so many goes on at steps grace, grace x reduction, ..."""
    metric: str | None = None
    """ASHA: a score during training, `psnr_hole`, `ssim_hole` or a loss; `None`: the objective."""

    @model_validator(mode="after")
    def _asha_only(self) -> "Scheduler":
        given = self.changed
        if self.name == "all" and given:
            raise ValueError(f"{', '.join(given)} belong to asha: say `name: asha`")
        return self


class Space(Strict):
    """What a searched key may be; exactly one of the four."""

    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[PositiveFloat, PositiveFloat] | None = None
    integers: tuple[int, int] | None = Field(None, alias="int")
    """Both ends included."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Space":
        kinds = (self.choice, self.uniform, self.loguniform, self.integers)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("name one of choice, uniform, loguniform, int")
        for ends in kinds[1:]:
            if ends is not None and not ends[0] < ends[1]:
                raise ValueError(f"the low end comes first, got [{ends[0]}, {ends[1]}]")
        return self


class Search(Strict):
    """Trials proposed one after the other, each from what was learnt so far."""

    name: Literal["optuna"] = "optuna"
    """Optuna's TPE sampler."""
    space: Annotated[dict[str, Space], Field(min_length=1)]
    """Dotted keys of the recipe to what they may be."""
    trials: PositiveInt
    startup: PositiveInt = 10
    """Trials drawn at random before anything is learnt."""
    seed: NonNegativeInt = 0
    second_objective: Literal["params", "gmacs"] | None = None
    """Smaller is better, beside the sweep's objective."""


class Subject(Strict):
    """A model that is scored as it is."""

    source: str = ""
    """Model folder, released checkpoint or Hub name; an empty one is named on the command line."""
    arch: str | dict[str, Any] = "lmi_dw_mixffn"
    """Architecture of a released checkpoint."""
    codec: str | None = None
    """Codec of a model that is saved without."""


class Resources(Strict):
    """What one training worker takes."""

    cpus: PositiveFloat = 1
    gpus: NonNegativeFloat = 0


class Sweep(Strict):
    """A sweep: a base recipe, its variations, an objective and what becomes of the winner."""

    name: str
    recipe: str | dict[str, Any] | None = None
    """The base: a recipe's name or file, or a mapping; `extends` in a mapping names its base."""
    model: str | Subject | None = None
    """Trains nothing and scores this model instead, by its path or in full."""
    experiments: list[Experiment] = []
    """Trials listed one by one."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Dotted keys to lists of values; every combination is a trial."""
    search: Search | None = None
    """A space to search instead."""
    seeds: list[NonNegativeInt] = []
    """Every trial once a seed, with one teacher; the table shows mean and deviation."""
    scheduler: Scheduler = Scheduler()
    score: Scoring | None = None
    """Scores every trained model by a protocol; its metrics join the table."""
    objective: Objective = Objective()
    promote: Promote | None = None
    published: str | None = None
    """The paper's table that belongs beside the results: `table2`, `table5`, `table6/...`."""
    latency: bool = False
    """Measures a denoising step of every architecture on this machine."""
    workers: PositiveInt = 1
    """Training workers of a trial."""
    cluster_workers: PositiveInt | Literal["all"] = 1
    """Workers of the runs that have the cluster to themselves: the teacher's, the promotion's."""
    resources: Resources = Resources()
    """Of each worker."""
    max_concurrent: PositiveInt | None = None
    """Trials at once; `None` is as many as the cluster holds."""
    max_failures: NonNegativeInt = 1
    """Times that a trial is tried again, from its last checkpoint."""
    stall_s: PositiveFloat | None = None
    """Seconds without a logged step after which a trial is ended, and tried again like any other;
    encoding data and scoring take none, so leave room for them."""

    @model_validator(mode="after")
    def _has_trials(self) -> "Sweep":
        given = [bool(self.experiments), bool(self.grid), self.search is not None]
        if sum(given) != 1:
            raise ValueError("a sweep needs either experiments or a grid or a search")
        labels = [experiment.label for experiment in self.experiments]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"experiment labels must differ; twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _has_not_too_many(self) -> "Sweep":
        count = len(self.experiments) or math.prod(map(len, self.grid.values()))
        count = count * max(1, len(self.seeds)) if self.search is None else self.search.trials
        if count > TRIALS:
            raise ValueError(f"a sweep has at most {TRIALS:,} trials, these are {count:,}")
        return self

    @model_validator(mode="after")
    def _has_a_subject(self) -> "Sweep":
        if (self.recipe is None) == (self.model is None):
            raise ValueError("a sweep needs either a recipe to train by or a model to score")
        scoring = sorted(key for key in self.varied if key.startswith("score."))
        if self.recipe is not None:
            if scoring:
                raise ValueError(f"{', '.join(scoring)}: only a sweep with `model` varies scoring")
            return self
        fields = ("search", "seeds", "scheduler", "promote")
        trains = set(fields) & set(self.changed)
        if trains or self.score is None or len(scoring) != len(self.varied):
            raise ValueError(
                "a sweep with `model` trains nothing: it needs `score`, varies only `score.` keys "
                f"and has no {', '.join(fields)}"
            )
        return self

    @model_validator(mode="after")
    def _has_seeds(self) -> "Sweep":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other")
        if self.seeds and self.search is not None:
            raise ValueError("a search draws new points instead of repeating them: drop its seeds")
        if self.seeds and self.scheduler.name == "asha":
            raise ValueError("asha would stop some seeds of a point and not others: drop one")
        if self.seeds and "seed" in self.varied:
            raise ValueError("name seeds either under seeds or as the recipe's `seed`, not both")
        return self

    @property
    def subject(self) -> Subject:
        """The model to score, of a sweep that trains nothing."""
        assert self.model is not None
        return Subject(source=self.model) if isinstance(self.model, str) else self.model

    @property
    def varied(self) -> set[str]:
        """Every dotted key that differs between points."""
        listed = {key for experiment in self.experiments for key in experiment.overrides}
        searched = set() if self.search is None else set(self.search.space)
        return {*self.grid, *listed, *searched}
