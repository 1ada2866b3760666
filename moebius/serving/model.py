"""The model that a server starts with."""

from pathlib import Path

from diffusers.utils.logging import disable_progress_bar

from moebius.inference.pipeline import InpaintPipeline

BUILTIN = Path(__file__).parents[1] / "assets" / "model"
"""A toy of 64 px, kept without its codec, the built-in one; its README says how it was made."""


def find_model(name: str | None) -> str:
    """The name that was given, or the built-in model's folder.

    Raises:
        ValueError: none was given, and this installation has no built-in one.
    """
    if name is not None:
        return name
    if not (BUILTIN / "model_index.json").is_file():
        raise ValueError(f"no built-in model in {BUILTIN}: name one with --model")
    return str(BUILTIN)


def load_model(name: str, codec: str | None, device: str) -> InpaintPipeline:
    """A pipeline on its device that shows no progress on the terminal."""
    disable_progress_bar()  # diffusers' own, for loading
    if codec is None and Path(name) == BUILTIN:
        codec = "builtin"
    pipeline = InpaintPipeline.from_pretrained(name, codec=codec)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
