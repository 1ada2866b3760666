"""Loading by diffusers, strictly: by itself it fills what a file lacks with random weights."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KINDS = {"missing_keys": "missing", "unexpected_keys": "unexpected"}


def load_whole(load: Callable[..., Any], place: str | Path, **options: Any) -> Any:
    """What `load`, a `from_pretrained` of diffusers, makes of a folder or Hub name.

    Raises:
        ValueError: weights that the file lacks, or that the model does not have.
    """
    with _quiet():  # the error says it
        model, info = load(place, output_loading_info=True, **options)
    problems = [
        f"{len(info[kind])} {what}, first {min(info[kind])}"
        for kind, what in KINDS.items()
        if info[kind]
    ]
    if problems:
        raise ValueError(f"the weights in {place} are not its config.json's: {'; '.join(problems)}")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("diffusers.models.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
