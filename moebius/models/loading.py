"""Denoisers from wherever they lie: our folders, released files, the Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError

from moebius.models.denoiser import Denoiser, build
from moebius.models.released import load_released

RELEASED_FILE = "diffusion_pytorch_model.bin"


def load_denoiser(
    source: str | Path, arch: str | Mapping[str, Any] = "lmi_dw_mixffn", **model: Any
) -> Denoiser:
    """A denoiser in eval mode.

    Args:
        source: a folder of `save_pretrained` (a denoiser's or a pipeline's), a released `.bin` or
            `.safetensors` file, a folder with the released file, or a Hub name with a subfolder
            (`hustvl/Moebius/ft_places2`).
        arch: architecture of a released checkpoint; our folders hold their own.
        model: overrides of a released checkpoint's architecture.

    Raises:
        ValueError: nothing there, or weights that do not fit.
    """
    path = locate(source) or _download(str(source))
    if path.is_dir():
        return _load_folder(path).eval()
    denoiser = build(arch, **model)
    load_released(denoiser, path)
    return denoiser.eval()


def locate(source: str | Path) -> Path | None:
    """The model folder or released file that a source names here; `None` for a Hub name.

    Raises:
        ValueError: it is neither.
    """
    path = Path(source)
    for folder in (path / "denoiser", path):
        if (folder / "config.json").is_file():
            return folder
    for file in (path / RELEASED_FILE, path):
        if file.is_file():
            return file
    _hub_name(str(source))
    return None


def _load_folder(folder: Path) -> Denoiser:
    try:
        return Denoiser.from_pretrained(folder)
    except (OSError, TypeError, RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"model folder {folder} cannot be loaded: {reason}") from None


def _hub_name(name: str) -> tuple[str, str | None]:
    """Repository and folder in it."""
    owner, _, rest = name.partition("/")
    repository, _, subfolder = rest.partition("/")
    if not repository or name.startswith((".", "/")) or name.endswith((".bin", ".safetensors")):
        raise ValueError(f"no model at {name}: give a model folder, a released file or a Hub name")
    return f"{owner}/{repository}", subfolder or None


def _download(name: str) -> Path:
    repository, subfolder = _hub_name(name)
    try:
        return Path(hf_hub_download(repository, RELEASED_FILE, subfolder=subfolder))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"no model at {name}, and the Hub does not give it: {reason}") from None
