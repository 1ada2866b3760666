"""Recipes by name or file, each deriving from another, with dotted overrides on top."""

import hashlib
import importlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any

from moebius.config import Recipe, load_yaml, override, parse, set_dotted
from moebius.data.sample_spec import sample_spec
from moebius.distill.tracking import check_trackers

PATHS = (
    "arch",
    "init_from",
    "codec",
    "data.source",
    "data.latents",
    "teacher.path",
    "validation.source",
    "distill.perceptual_weights",
)
"""Keys that may name a file or folder."""
RESERVED = ("", "builtin", "random")
FOLDER = files("moebius") / "assets" / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(item.name.removesuffix(".yaml") for item in FOLDER.iterdir())


def read_recipe(
    source: str | Path | Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any] = ()
) -> Recipe:
    """A validated recipe, its plugins imported.

    Args:
        source: a name (`builtin`, `paper`), a YAML file, or a mapping; each may name its base
            under `extends` and then says what differs.
        overrides: `dotted.key=value` texts, or a mapping of dotted keys to values.
    """
    data = raw_recipe(source)
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            data = set_dotted(data, key, value)
    else:
        data = override(data, overrides)
    name = "recipe" if isinstance(source, Mapping) else f"recipe {source}"
    recipe = parse(Recipe, with_absolute_paths(data), name)
    load_plugins(recipe.plugins)
    check_trackers(recipe.trackers)
    sample_spec(recipe.data, recipe.seed)
    return recipe


def with_absolute_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """Files and folders that exist here, by their whole path: workers run in other folders."""
    result = dict(data)
    for key in PATHS:
        section, _, name = key.rpartition(".")
        holder = result.get(section) if section else result
        value = holder.get(name) if isinstance(holder, Mapping) else None
        if isinstance(value, str) and value not in RESERVED and os.path.exists(value):
            result = set_dotted(result, key, str(Path(value).absolute()))
    return result


def raw_recipe(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's mapping with `extends` resolved, not yet validated.

    Raises:
        ValueError: a recipe that is not there, is malformed, or extends itself.
    """
    chain, names = [_read(source)], [str(source)]
    while (base := chain[-1].pop("extends", None)) is not None:
        if str(base) in names:
            raise ValueError(f"recipe {base} extends itself")
        names.append(str(base))
        chain.append(_read(base))
    return reduce(merge, reversed(chain))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top, section by section; lists are replaced whole."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merge(inner, value)
        merged[key] = value
    return merged


def load_plugins(names: Iterable[str]) -> None:
    """Imports the modules that register a user's operators."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"plugin {name!r} cannot be imported ({error}); put it on PYTHONPATH"
            ) from None


def _read(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return dict(source)
    if str(source).endswith((".yaml", ".yml")):
        return load_yaml(source)
    if str(source) in recipe_names():
        return load_yaml(str(FOLDER / f"{source}.yaml"))
    raise ValueError(
        f"unknown recipe {str(source)!r}; known: {', '.join(recipe_names())}, or a .yaml file"
    )


def teacher_recipe(recipe: Recipe) -> Recipe | None:
    """The run that trains the recipe's teacher first, or `None` where nothing is to be trained."""
    teacher = recipe.teacher
    if teacher is None or teacher.train is None or not recipe.needs_teacher:
        return None
    base = recipe.model_dump(mode="json", by_alias=True)
    base |= {"arch": teacher.arch, "teacher": None, "init_from": None}
    base["distill"] = {"losses": ["task"]}
    return parse(Recipe, merge(base, teacher.train), "teacher.train")


def teacher_folder(recipe: Recipe, shared: Path) -> Path:
    """Where a trained teacher lies: named by a digest of its own recipe."""
    own = teacher_recipe(recipe)
    assert own is not None
    # Not by who watches it.
    described = own.model_dump(mode="json", by_alias=True, exclude={"trackers"})
    text = json.dumps(described, sort_keys=True)
    return shared / f"teacher-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
