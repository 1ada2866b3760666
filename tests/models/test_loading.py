"""Denoisers from our folders, released files and the Hub, and one clear line where none is."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

import moebius
from moebius.models import loading
from moebius.models.denoiser import Denoiser
from moebius.models.loading import RELEASED_FILE, load_denoiser

TINY = {
    "widths": [32, 32, 32],
    "depths": [1, 1, 1],
    "lcg_dim": 8,
    "context_dim": 8,
    "latent_size": 8,
}


@pytest.fixture(scope="module")
def model() -> Denoiser:
    return moebius.build("lmi_dw_ffn", **TINY)


def assert_same(loaded: Denoiser, model: Denoiser) -> None:
    assert isinstance(loaded, Denoiser) and not loaded.training
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert loaded.architecture.stages == model.architecture.stages


@pytest.mark.parametrize("subfolder", ["", "denoiser"])
def test_a_folder_of_ours_holds_its_own_architecture(model, tmp_path: Path, subfolder: str):
    model.save_pretrained(tmp_path / subfolder)
    assert_same(load_denoiser(tmp_path), model)
    assert_same(load_denoiser(str(tmp_path), "pixelhacker"), model)


@pytest.mark.parametrize("name", [RELEASED_FILE, "weights.safetensors"])
def test_a_released_file_needs_its_architecture(model, tmp_path: Path, name: str):
    moebius.save_released(model, tmp_path / name)
    assert_same(load_denoiser(tmp_path / name, "lmi_dw_ffn", **TINY), model)
    with pytest.raises(ValueError, match=f"{name} does not fit the model"):
        load_denoiser(tmp_path / name, "lmi_dw_mixffn", **TINY)


def test_a_folder_with_the_released_file(model, tmp_path: Path):
    moebius.save_released(model, tmp_path / RELEASED_FILE)
    assert_same(load_denoiser(tmp_path, "lmi_dw_ffn", **TINY), model)


def test_a_name_is_fetched_from_the_hub(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    moebius.save_released(model, tmp_path / RELEASED_FILE)
    asked = []

    def download(repository: str, file: str, subfolder: str | None) -> str:
        asked.append((repository, file, subfolder))
        return str(tmp_path / file)

    monkeypatch.setattr(loading, "hf_hub_download", download)
    for name in ("hustvl/Moebius/ft_places2", "hustvl/Moebius"):
        assert_same(load_denoiser(name, "lmi_dw_ffn", **TINY), model)
    assert asked == [
        ("hustvl/Moebius", RELEASED_FILE, "ft_places2"),
        ("hustvl/Moebius", RELEASED_FILE, None),
    ]


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("offline\nlong"), OSError("no route")])
def test_a_hub_that_does_not_answer_is_one_line(error, monkeypatch: pytest.MonkeyPatch):
    def download(*arguments: object, **options: object) -> str:
        raise error

    monkeypatch.setattr(loading, "hf_hub_download", download)
    with pytest.raises(ValueError, match="no model at a/b, and the Hub does not give it") as caught:
        load_denoiser("a/b")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["nothing", "./a/b", "/nowhere/at/all", "a/b/model.bin", "a/b.safetensors", ""]
)
def test_what_is_no_model_is_refused_without_asking_the_hub(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "hf_hub_download", None)
    with pytest.raises(
        ValueError, match=r"no model at .*: give a model folder, a released file or"
    ):
        load_denoiser(source)


def damage(folder: Path, how: str) -> None:
    weights, config = folder / "diffusion_pytorch_model.safetensors", folder / "config.json"
    if how == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "no weights":
        weights.unlink()
    elif how == "cut config":
        config.write_text(config.read_text()[:40])
    elif how == "no stages":
        data = json.loads(config.read_text())
        del data["stages"]
        config.write_text(json.dumps(data))
    elif how == "other widths":
        data = json.loads(config.read_text())
        data["stages"][0]["width"] = 64
        config.write_text(json.dumps(data))
    elif how == "other operator":
        data = json.loads(config.read_text())
        data["stages"][0]["ffn"] = "mix_ffn"
        config.write_text(json.dumps(data))
    elif how == "one weight less":
        state = load_file(weights)
        state.popitem()
        save_file(state, weights, {"format": "pt"})


@pytest.mark.parametrize(
    "how",
    [
        "cut weights",
        "no weights",
        "cut config",
        "no stages",
        "other widths",
        "other operator",
        "one weight less",
    ],
)
def test_a_damaged_folder_is_named_in_one_line(model, tmp_path: Path, how: str):
    model.save_pretrained(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(ValueError, match=f"{tmp_path.name} cannot be loaded") as caught:
        load_denoiser(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"latent_size": 2**40}, "of another shape|can be built"),
        ({"lcg_dim": 16}, r"not its config.json's: \d+ of another shape, first lcg"),
        ({"latent": 3}, "did you mean 'latent_size'"),
        ({"stages": [{"width": 32, "depth": 2**31}]}, "asks for more layers than"),
    ],
)
def test_a_config_of_another_model_is_refused_before_it_is_built(
    model, tmp_path: Path, change: dict, reason: str
):
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ValueError, match=reason) as caught:
        load_denoiser(tmp_path)
    assert len(str(caught.value).splitlines()) == 1 and str(tmp_path) in str(caught.value)


def test_a_config_that_is_a_text_does_not_lead_to_the_hub(model, tmp_path: Path):
    """As diffusers would have it."""
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('"owner/name"')
    with pytest.raises(ValueError, match="config.json is not a JSON object"):
        load_denoiser(tmp_path)
