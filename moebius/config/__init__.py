"""The schema of every YAML file: strict, with unknown keys refused by the nearest known name."""

from moebius.config.architecture import Architecture, Operator, Stage
from moebius.config.json_text import load_json, load_json_lines, read_object
from moebius.config.protocol import (
    Images,
    Masks,
    Polarity,
    Protocol,
    PublishedMasks,
    Sampling,
    Scoring,
)
from moebius.config.recipe import (
    Data,
    Distill,
    LossName,
    Optimizer,
    Recipe,
    Teacher,
    Training,
    Validation,
)
from moebius.config.schema import (
    Module,
    Probability,
    Strict,
    load_yaml,
    override,
    parse,
    set_dotted,
)
from moebius.config.sweep import Experiment, Objective, Promote, Resources, Sweep

__all__ = [
    "Architecture",
    "Data",
    "Distill",
    "Experiment",
    "Images",
    "LossName",
    "Masks",
    "Module",
    "Objective",
    "Operator",
    "Optimizer",
    "Polarity",
    "Probability",
    "Promote",
    "Protocol",
    "PublishedMasks",
    "Recipe",
    "Resources",
    "Sampling",
    "Scoring",
    "Stage",
    "Strict",
    "Sweep",
    "Teacher",
    "Training",
    "Validation",
    "load_json",
    "load_json_lines",
    "load_yaml",
    "override",
    "parse",
    "read_object",
    "set_dotted",
]
