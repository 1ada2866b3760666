"""Released checkpoints: `embedding_layer.weight` and `diff_model.*`, read and written."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moebius.models.modes import folder_mode

logger = logging.getLogger(__name__)

LCG_KEY = "embedding_layer.weight"
UNET_PREFIX = "diff_model."


def load_released(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> nn.Module:
    """Loads a released checkpoint into a `Denoiser`, strictly.

    Args:
        model: a denoiser of the checkpoint's architecture.
        source: a `.bin` (read with `weights_only`), a `.safetensors` file, or a state dict; with
            the LCG table or without (the model's own table then stays).

    Raises:
        ValueError: unreadable file, or keys or shapes that do not fit; the model is unchanged.
    """
    name = "state dict" if isinstance(source, Mapping) else str(source)
    state = dict(source) if isinstance(source, Mapping) else read_tensors(source)
    renamed = {_internal(key): value for key, value in state.items()}
    if "lcg.weight" not in renamed:
        logger.warning("%s holds no LCG table: the model keeps its own", name)
        renamed["lcg.weight"] = model.get_parameter("lcg.weight").detach()
    load_checked(model, renamed, name)
    return model


def load_checked(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Loads a state dict once every key and shape is known to fit.

    Raises:
        ValueError: naming `name` and the first key of each kind of misfit; the model is unchanged.
    """
    _check(model.state_dict(), state, name)
    model.load_state_dict(state)


def released_state_dict(model: nn.Module, lcg: bool = True) -> dict[str, Tensor]:
    """The model's weights under the release's keys, with the LCG table or without."""
    state = {_released(key): value for key, value in model.state_dict().items()}
    return {key: value for key, value in state.items() if lcg or key != LCG_KEY}


def save_released(model: nn.Module, path: str | Path, lcg: bool = True) -> None:
    """Writes `released_state_dict` as `.safetensors`, or as `.bin` with `torch.save`."""
    state = {key: value.contiguous() for key, value in released_state_dict(model, lcg).items()}
    if str(path).endswith(".safetensors"):
        save_file(state, path)
        Path(path).chmod(folder_mode(Path(path).parent))
    else:
        torch.save(state, path)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or `torch.save` file; never unpickles objects.

    Raises:
        ValueError: no such file, or none of tensors.
    """
    state = read_state(path)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"checkpoint {path} is not a state dict of tensors")
    return state


def read_state(path: str | Path) -> Any:
    """As `read_tensors`, of tensors in any plain data, such as an optimizer's state."""
    if not os.path.isfile(path):
        raise ValueError(f"checkpoint {path} does not exist")
    try:
        if str(path).endswith(".safetensors"):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, KeyError) as error:
        raise ValueError(f"checkpoint {path} cannot be read: {_first_line(error)}") from None
    except Exception:  # of any kind; torch's own text advises to switch the protection off
        raise ValueError(
            f"checkpoint {path} is no file of weights alone, and nothing else is unpickled: "
            "give a .safetensors file, or a .bin of tensors"
        ) from None


def _internal(key: str) -> str:
    if key == LCG_KEY:
        return "lcg.weight"
    return "unet." + key.removeprefix(UNET_PREFIX)


def _released(key: str) -> str:
    return LCG_KEY if key == "lcg.weight" else UNET_PREFIX + key.removeprefix("unet.")


def _check(own: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> None:
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    shapes = [
        f"{_released(k)} is {tuple(given[k].shape)}, the model's {tuple(own[k].shape)}"
        for k in sorted(own.keys() & given.keys())
        if given[k].shape != own[k].shape
    ]
    problems = [
        f"{len(keys)} {what}, first {keys[0] if what == 'shapes differ' else _released(keys[0])}"
        for keys, what in ((missing, "missing"), (extra, "unexpected"), (shapes, "shapes differ"))
        if keys
    ]
    if problems:
        text = " ".join("; ".join(problems).split())  # keys may hold anything
        raise ValueError(
            f"{name} does not fit the model: {text}. "
            "Build the model with the checkpoint's architecture and sizes"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
