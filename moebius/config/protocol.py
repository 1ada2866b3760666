"""The schema of benchmark protocols, and of how one is scored on a machine."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from moebius.config.schema import Probability, Strict

Polarity = Literal["hole", "known"]
"""What white means in a file of masks."""

Geometry = Literal["crop", "squash", "square", "short_side", "random_crop"]
"""How a picture becomes a square; see `moebius.evaluation.geometry`."""


class Images(Strict):
    """Which pictures are scored, and where they come from."""

    about: str
    """The data set, as a user finds it."""
    source: str | None = None
    """What `read_records` takes; `None`: the user names it."""
    count: PositiveInt
    """Pictures that the benchmark has; other numbers are refused."""
    take: Literal["all", "first"] = "all"
    """`first`: the first `count` of the sorted names."""
    ids: tuple[NonNegativeInt, NonNegativeInt] | None = None
    """First and last of the numbers that file names may be, for sets split by number."""
    celeba_partition: Literal["train", "validation", "test"] | None = None
    """Split of CelebA that CelebA-HQ's pictures are mapped to (protocols, trap 14)."""
    min_side: PositiveInt = 1
    """Pictures with a shorter side are left out before counting."""
    crops: PositiveInt = 1
    """Crops cut from each picture, for the geometry `random_crop`."""
    short_side: tuple[PositiveInt, PositiveInt] | None = None
    """Range of short sides that a picture is resized to before a random crop."""


class PublishedMasks(Strict):
    """A set of mask files that others have published."""

    about: str
    white: Polarity
    pair: Literal["stem", "order"] = "stem"
    """By file name, or the i-th mask for the i-th picture, both sorted."""


class Masks(Strict):
    """The holes: drawn for each picture's id, or read from a published set."""

    generator: str
    """Key of `moebius.data.masks.MASKS`."""
    area: tuple[Probability, Probability] = (0, 1)
    """Hole fractions [low, high) that are kept; others are drawn anew, empty and full ones too."""
    seed: NonNegativeInt = 0
    mean_hole: Probability | None = None
    """Expected over the whole set; a set that is off is refused (protocols, trap 3)."""
    published: PublishedMasks | None = None
    """What `--masks FOLDER` is expected to hold; without the folder, masks are drawn."""


class Sampling(Strict):
    """How a diffusion model is run."""

    side: PositiveInt = 512
    """Side of the square that the model sees; results are brought back to the scored size."""
    steps: PositiveInt = 20
    guidance: NonNegativeFloat = 2.5
    start: Literal["noise", "release"] = "noise"
    """`noise`: strength 1, every step runs. `release`: strength 0.99 from the truth's own latent,
    so that one step less runs and the hole leaks (protocols, trap 1)."""


class Protocol(Strict):
    """One benchmark: pictures, holes, how a model is run, what is measured."""

    title: str
    images: Images
    geometry: Geometry
    size: PositiveInt
    """Side of the scored square in pixels."""
    masks: Masks
    sampling: Sampling = Sampling()
    metrics: Annotated[list[str], Field(min_length=1)]
    """Names of `moebius.evaluation.scores.METRICS`."""
    reference: str | None = None
    """Rows that the paper prints for it, as `table3/places2_test`."""
    unspecified: list[str] = []
    """What the paper leaves open, and what was chosen."""

    @model_validator(mode="after")
    def _consistent(self) -> "Protocol":
        low, high = self.masks.area
        if low >= high:
            raise ValueError(f"masks.area: {low:g} is not below {high:g}")
        random_crop = self.geometry == "random_crop"
        if random_crop != (self.images.short_side is not None):
            raise ValueError("images.short_side and the geometry random_crop need each other")
        if self.images.short_side is not None:
            low_side, high_side = self.images.short_side
            if not self.size <= low_side <= high_side:
                raise ValueError(f"images.short_side: give two sides of {self.size} or more")
        if self.images.crops > 1 and not random_crop:
            raise ValueError("images.crops: only the geometry random_crop cuts several")
        return self


class Scoring(Strict):
    """A protocol as it is run here: where its files lie, and what differs from it."""

    protocol: str | dict[str, Any] = "builtin"
    """A name (`python -m moebius.evaluate --list`), a YAML file, or a mapping."""
    images: str | None = None
    """Folder or manifest of the pictures; `None` is the protocol's own source."""
    ids: str | None = None
    """Text file of picture names to score, one a line, in place of the protocol's choice."""
    masks: str | None = None
    """Folder of published masks; `None` draws them."""
    white: Polarity | None = None
    """What white means in that folder, where the protocol does not say it."""
    limit: PositiveInt | None = None
    """Score the first pictures only."""
    parity: bool = False
    """Run models as released: strength 0.99 from the truth's latent."""
    steps: PositiveInt | None = None
    guidance: NonNegativeFloat | None = None
    """Both in place of the protocol's."""
    metrics: Annotated[list[str], Field(min_length=1)] | None = None
    """In place of the protocol's."""
    weights: str | None = None
    """Folder of the metrics' weights; `None` downloads them."""
    batch: PositiveInt | None = None
    """Pictures that a model fills at once; by default 8 on a GPU and 1 on a CPU, where a result
    then does not depend on its neighbours, to the byte."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
