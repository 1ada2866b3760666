"""Architectures by name, mapping or YAML file: the grammar of Tab. 2 and stage-wise mixtures."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from moebius.config import Architecture, Stage, load_yaml, parse

SELF = {"gla": "gla", "ll": "local_lambda"}
CROSS = {"ca": "cross_attention", "il": "interactive_lambda"}
CONV = {"conv": "conv", "dw": "dw_conv"}
FFN = {"ffn": "ffn", "mixffn": "mix_ffn"}
TEACHER = "pixelhacker"
WIDTHS = (320, 640, 1280)

EXPERIMENTS = {
    "gla_ca_conv_ffn": (1, 11),
    "ll_ca_conv_ffn": (2, 12),
    "gla_il_conv_ffn": (3, 13),
    "gla_ca_conv_mixffn": (4, 14),
    "gla_ca_dw_ffn": (5, 15),
    "lmi_conv_ffn": (6, 7),
    "lmi_dw_ffn": (None, 8),
    "lmi_dw_mixffn": (10, 9),
}
"""Tab. 2's experiment numbers of an architecture: without and with distillation."""


def _short(self_: str, cross: str, conv: str, ffn: str) -> str:
    mixer = "lmi" if (self_, cross) == ("ll", "il") else f"{self_}_{cross}"
    return f"{mixer}_{conv}_{ffn}"


STUDENTS = tuple(_short(*parts) for parts in product(SELF, CROSS, CONV, FFN))
"""The grammar's 16 names, with `lmi` for `ll_il`."""
NAMES = (*STUDENTS, TEACHER)


def resolve(arch: str | Path | Mapping[str, Any] | Architecture, **overrides: Any) -> Architecture:
    """The architecture that a name, a YAML file or a mapping describes.

    A mapping may start from a `base` name; its `stages` then say what differs, stage by stage.

    Args:
        arch: `lmi_dw_mixffn` (or any name of `NAMES`), `my_unet.yaml`, or a mapping.
        overrides: fields of `Architecture`, and `widths` or `depths`, one a stage.

    Raises:
        ValueError: unknown name, key or operator, or a list that does not fit the stages.
    """
    if isinstance(arch, Architecture):
        described = arch.model_dump(by_alias=True)
    elif isinstance(arch, Mapping):
        described = _from_mapping(arch)
    elif str(arch).endswith((".yaml", ".yml")):
        described = _from_mapping({"name": Path(arch).stem, **load_yaml(arch)})
    else:
        described = _from_name(str(arch))
    for key, field in (("widths", "width"), ("depths", "depth")):
        values = overrides.pop(key, None)
        if values is not None:
            _set_each(described, key, field, values)
    given = {key: value for key, value in overrides.items() if value is not None}
    return parse(Architecture, {**described, **given}, "architecture")


def canonical(name: str) -> str:
    """`ll_il_dw_mixffn` -> `lmi_dw_mixffn`; other names as they are."""
    return name.replace("ll_il_", "lmi_", 1) if name.startswith("ll_il_") else name


def _from_name(name: str) -> dict[str, Any]:
    short = canonical(name)
    if short == TEACHER:
        return _teacher()
    if short not in STUDENTS:
        close = get_close_matches(short, NAMES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown architecture {name!r}; {hint}known: {', '.join(NAMES)}")
    *mixers, conv, ffn = short.replace("lmi", "ll_il", 1).split("_")
    operators = {
        "self": SELF[mixers[0]],
        "cross": CROSS[mixers[1]],
        "conv": CONV[conv],
        "ffn": FFN[ffn],
    }
    return {"name": short, "stages": [{"width": width, **operators} for width in WIDTHS]}


def _teacher() -> dict[str, Any]:
    base = _from_name("gla_ca_conv_ffn")
    last = {**base["stages"][-1]}
    return {
        "name": TEACHER,
        "stages": [*base["stages"], {**last, "mixing": False}],
        "middle": last,
    }


def _from_mapping(described: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(described)
    base = given.pop("base", None)
    overrides = {key: given.pop(key, None) for key in ("widths", "depths")}
    if base is None:
        merged = given
    else:
        start = resolve(base).model_dump(by_alias=True, exclude_defaults=True)
        merged = {**start, "name": f"{start['name']}_mixed", **given}
        if "stages" in given:
            merged["stages"] = _merge_stages(start["stages"], given["stages"])
    for key, field in (("widths", "width"), ("depths", "depth")):
        if overrides[key] is not None:
            _set_each(merged, key, field, overrides[key])
    return merged


def _merge_stages(base: Sequence[Mapping[str, Any]], given: Any) -> list[dict[str, Any]]:
    if not _are_mappings(given):
        raise ValueError("architecture: stages must be a list of mappings, one a stage")
    return [{**base[min(i, len(base) - 1)], **stage} for i, stage in enumerate(given)]


def _are_mappings(stages: Any) -> bool:
    return isinstance(stages, list) and all(isinstance(stage, Mapping) for stage in stages)


def _set_each(described: dict[str, Any], key: str, field: str, values: Any) -> None:
    stages = described.get("stages", [])
    if not isinstance(values, list | tuple):
        raise ValueError(f"architecture: {key} must be a list, one value a stage")
    if not _are_mappings(stages):
        raise ValueError("architecture: stages must be a list of mappings, one a stage")
    if len(values) != len(stages):
        raise ValueError(
            f"architecture {described.get('name')!r}: {key} has {len(values)} values "
            f"for {len(stages)} stages"
        )
    described["stages"] = [
        {**stage, field: value} for stage, value in zip(stages, values, strict=True)
    ]
    if key == "widths" and values and isinstance(described.get("middle"), Mapping):
        described["middle"] = {**described["middle"], field: values[-1]}


__all__ = ["EXPERIMENTS", "NAMES", "STUDENTS", "TEACHER", "Stage", "canonical", "resolve"]
