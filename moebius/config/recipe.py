"""The schema of recipes: one training run, whole."""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from moebius.config.schema import Module, Probability, Strict


class Teacher(Strict):
    """Where the teacher comes from: weights that exist, or a first run that trains it."""

    path: str | None = None
    """Model folder, released checkpoint, or Hub name."""
    arch: str | dict[str, Any] = "pixelhacker"
    """Architecture of a released checkpoint, or of the teacher to train."""
    train: dict[str, Any] | None = None
    """Overrides of the recipe for training it once by the task loss, before the student."""

    @model_validator(mode="after")
    def _one_source(self) -> "Teacher":
        if (self.path is None) == (self.train is None):
            raise ValueError("a teacher needs either path or train")
        return self


class Data(Strict):
    """Photographs and holes; see `moebius.data.samples.SampleSpec`."""

    source: str = "builtin"
    """`builtin`, a folder of images, or a JSONL manifest."""
    size: PositiveInt = 512
    """Side of the square crop in pixels, a multiple of 32."""
    short_side: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Short side before the crop: fixed, or drawn from a range; `None` is `size`."""
    background_mask: str = "lama_medium_512"
    scene_mask_probability: Probability = 0.5
    extra_foreground_mask: bool = False
    dilation_probability: Probability = 0.99
    flip_probability: Probability = 0.5
    channel_shuffle_probability: Probability = 0.0
    """How often the colour channels change places: colours for a set of few photographs."""
    max_hole: Probability = 0.6
    foreground_share: Probability = 0.1
    max_unreadable: Probability = 0.01
    """Share of unreadable images above which the run stops."""
    timeout_s: PositiveFloat = 300
    """Seconds that a picture may take to be read, after which the run stops and names it."""
    cache: NonNegativeInt = 0
    """Draws that are encoded once, before training, and repeated; 0 encodes every draw anew."""
    latents: str | None = None
    """Folder or `s3://` URL that `python -m moebius.encode` filled; no photograph is read then."""
    latents_cache: PositiveFloat = 32
    """GB of a machine's disk for copies of shards that lie in an object store."""
    workers: NonNegativeInt = 0
    """Loader processes a training worker."""

    @model_validator(mode="after")
    def _size_fits_the_latent(self) -> "Data":
        if self.size % 32:
            raise ValueError(f"size must be a multiple of 32 pixels, got {self.size}")
        return self

    @model_validator(mode="after")
    def _encoded_once(self) -> "Data":
        if self.latents and self.cache:
            raise ValueError("latents are encoded already: set data.cache=0 beside data.latents")
        return self

    @property
    def encoded(self) -> bool:
        """Whether training reads latents, so that a step runs no encoder."""
        return bool(self.cache or self.latents)


LossName = Literal["coarse", "fine", "task", "perceptual"]


class Distill(Strict):
    """Losses and their balance (Eq. 4, 5)."""

    losses: Annotated[list[LossName], Field(min_length=1)] = list(get_args(LossName))
    """Any non-empty subset; `[task]` is plain training and needs no teacher."""
    balance: Literal["paper", "release", "static"] = "paper"
    static_weights: dict[LossName, NonNegativeFloat] = {}
    """One weight a loss, for the static balance."""
    perceptual_weights: str | None = None
    """E-LatentLPIPS weights file, or `random`: made-up ones, for demos only."""
    perceptual_augment: bool = True
    adapter: bool = False
    """Joins taps of different width or size by a learned 1x1 convolution."""
    student_tap: str | None = None
    """Feature of the student that L_C compares; `None` is its last down stage."""
    teacher_tap: str | None = None
    """Its counterpart; `None` is the decoder's feature at the same scale, else the same name."""

    @model_validator(mode="after")
    def _each_once(self) -> "Distill":
        if len(set(self.losses)) < len(self.losses):
            raise ValueError(f"losses: name each once, not {', '.join(self.losses)}")
        return self


class Optimizer(Strict):
    """Muon or AdamW, schedule, clipping and averaging."""

    name: Literal["muon", "adamw"] = "muon"
    lr: PositiveFloat = 2e-4
    weight_decay: NonNegativeFloat = 0.1
    warmup: NonNegativeInt = 0
    """Steps of linear warm-up."""
    milestones: list[PositiveInt] = []
    """Steps at which the rate is multiplied by `gamma`."""
    gamma: PositiveFloat = 0.1
    linear_decay: bool = False
    """The rate also falls linearly, to zero at the last step: for short runs."""
    clip_norm: PositiveFloat | None = 1.0
    ema: Probability | None = 0.9999
    """Decay of the weights' running average, which is what is scored; `None` switches it off."""


class Training(Strict):
    """Length, batch arithmetic, precision and intervals of a run."""

    steps: PositiveInt
    global_batch: PositiveInt
    """Samples a step over all workers."""
    micro_batch: PositiveInt | None = None
    """Samples a worker holds at once; gradients accumulate up to its share of the global batch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    batch_norm: Literal["train", "frozen", "sync"] = "train"
    """`frozen` uses stored statistics; `sync` shares a batch's over GPUs."""
    timesteps: Literal["logit_normal", "uniform"] = "logit_normal"
    """The release draws floor(1000 sigmoid(N(0, 1)))."""
    timestep_logit_mean: float = 0.0
    """Mean of that normal: above 0, noisier steps are drawn more often."""
    timestep_logit_std: PositiveFloat = 1.0
    noise_offset: NonNegativeFloat = 0.0357
    log_every: PositiveInt = 50
    checkpoint_every: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 2


class Validation(Strict):
    """Fixed crop-mask pairs that are inpainted and scored."""

    source: str = "builtin:validation"
    pairs: PositiveInt = 32
    steps: PositiveInt = 20
    guidance: NonNegativeFloat = 1.0
    every: PositiveInt | None = None
    """Steps between scores during training; `None` scores once, at the end."""
    pictures: NonNegativeInt = 8
    """Pairs shown in the sample pictures."""
    seed: NonNegativeInt = 0


TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class Recipe(Strict):
    """One training run, whole."""

    arch: str | dict[str, Any] = "lmi_dw_mixffn"
    """A name of the grammar, a YAML file, or a mapping with `base` and `stages`."""
    model: dict[str, Any] = {}
    """Overrides of the architecture: `widths`, `depths`, `latent_size`, ..."""
    init_from: str | None = None
    """Weights to start from: a model folder, a released file, or a Hub name."""
    teacher: Teacher | None = None
    data: Data = Data()
    codec: str = "builtin"
    """`builtin`, a folder, or a Hub name of an AutoencoderKL."""
    distill: Distill = Distill()
    optimizer: Optimizer = Optimizer()
    training: Training
    validation: Validation = Validation()
    seed: NonNegativeInt = 0
    plugins: list[Module] = []
    """Modules to import first, which register operators."""
    trackers: list[TrackerName] = ["tensorboard"]
    """Who is told the metrics beside `metrics.jsonl`; where they are is said by the environment
    variables of each, such as WANDB_MODE and MLFLOW_TRACKING_URI."""

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        distill = self.distill
        if distill.balance == "static":
            missing = [name for name in distill.losses if name not in distill.static_weights]
            if missing:
                raise ValueError(f"distill.static_weights lacks {', '.join(missing)}")
        micro = self.training.micro_batch
        if micro and self.training.global_batch % micro:
            raise ValueError(
                f"training.global_batch {self.training.global_batch} is not a multiple of "
                f"training.micro_batch {micro}"
            )
        return self

    @property
    def needs_teacher(self) -> bool:
        """Whether a loss compares with a teacher."""
        return bool({"coarse", "fine"} & set(self.distill.losses))
