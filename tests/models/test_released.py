"""Reading and writing released checkpoints, and what is refused."""

from pathlib import Path

import pytest
import torch

import moebius
from moebius.models.released import LCG_KEY, released_state_dict

SIZES = {"widths": (32, 32, 32), "lcg_dim": 16, "context_dim": 8, "latent_size": 8}


@pytest.fixture(scope="module")
def model() -> moebius.Denoiser:
    return moebius.build("lmi_dw_mixffn", **SIZES)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@pytest.mark.parametrize("lcg", [True, False])
def test_round_trip(model, tmp_path: Path, caplog, suffix: str, lcg: bool) -> None:
    path = tmp_path / f"diffusion_pytorch_model.{suffix}"
    moebius.save_released(model, path, lcg=lcg)
    other = moebius.build("lmi_dw_mixffn", **SIZES)
    own_table = other.lcg.weight.clone()
    moebius.load_released(other, path)
    assert ("holds no LCG table" in caplog.text) != lcg
    assert torch.equal(other.lcg.weight, model.lcg.weight if lcg else own_table)
    loaded = other.unet.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in model.unet.state_dict().items())


def test_another_architecture_is_refused_and_nothing_changes(model) -> None:
    other = moebius.build("gla_ca_conv_ffn", **SIZES)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit the model"):
        moebius.load_released(other, released_state_dict(model))
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


def test_wrong_shape_is_named(model) -> None:
    state = released_state_dict(model) | {LCG_KEY: torch.zeros(20, 17)}
    with pytest.raises(ValueError, match="embedding_layer.weight is \\(20, 17\\)"):
        moebius.load_released(model, state)


def test_bad_files_are_refused(model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        moebius.load_released(model, tmp_path / "none.bin")
    for suffix in ("bin", "safetensors"):
        cut = tmp_path / f"cut.{suffix}"
        moebius.save_released(model, cut)
        cut.write_bytes(cut.read_bytes()[:1000])
        with pytest.raises(ValueError, match="cut"):
            moebius.load_released(model, cut)


def test_another_kind_of_file_is_refused_without_bad_advice(model, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(ValueError, match="no file of weights alone") as refusal:
        moebius.load_released(model, tmp_path / "picture.png")
    assert "weights_only" not in str(refusal.value)


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/moebius_unpickled"),))


def test_pickled_objects_are_refused(model, tmp_path: Path) -> None:
    torch.save({"weight": Payload()}, tmp_path / "evil.bin")
    with pytest.raises(ValueError, match="no file of weights alone"):
        moebius.load_released(model, tmp_path / "evil.bin")
    assert not Path("/tmp/moebius_unpickled").exists()
