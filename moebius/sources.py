"""What a recipe names is there: asked of this machine before anything starts anywhere."""

from collections.abc import Callable, Sequence
from typing import Any

from moebius.config import Recipe
from moebius.data.manifest import check_source
from moebius.data.shards.index import read_index
from moebius.data.shards.storage import open_storage
from moebius.distill.perceptual import check_weights
from moebius.models import codec
from moebius.models.loading import locate
from moebius.recipes import teacher_recipe


def check_sources(recipe: Recipe) -> None:
    """Refuses a recipe whose models, codec, weights or data are not where it says.

    Names on the Hub and URLs are left to those who fetch them.

    Raises:
        ValueError: naming the key, and what may stand there.
    """
    _check(recipe)
    taught = teacher_recipe(recipe)
    if taught is not None:
        _check(taught)


def missing_source(recipes: Sequence[Recipe]) -> str | None:
    """What `check_sources` says of the first recipe that it refuses."""
    for recipe in recipes:
        try:
            check_sources(recipe)
        except ValueError as error:
            return str(error)
    return None


def _check(recipe: Recipe) -> None:
    perceptual = "perceptual" in recipe.distill.losses
    teacher = recipe.teacher.path if recipe.needs_teacher and recipe.teacher is not None else None
    latents = recipe.data.latents
    named: dict[str, tuple[str | None, Callable[[str], Any]]] = {
        "init_from": (recipe.init_from, locate),
        "teacher.path": (teacher, locate),
        "codec": (recipe.codec, codec.locate),
        "distill.perceptual_weights": (
            recipe.distill.perceptual_weights if perceptual else None,
            check_weights,
        ),
        "data.source": (None if latents else recipe.data.source, check_source),
        "data.latents": (latents, lambda place: read_index(open_storage(place))),
        "validation.source": (recipe.validation.source, check_source),
    }
    for key, (source, check) in named.items():
        if not source or "://" in source:
            continue
        try:
            check(source)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
