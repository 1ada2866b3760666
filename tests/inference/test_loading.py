import json
import pickle
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from moebius.inference import loading
from moebius.inference.pipeline import InpaintPipeline
from moebius.models.released import save_released

from .conftest import TINY, box_mask, fill_folder, load, photograph, run, tiny_denoiser, tiny_vae

ARCH = {"base": "lmi_dw_mixffn", "stages": [{"width": 32, "depth": 1}] * 3} | {
    key: value for key, value in TINY.items() if key not in ("widths", "depths")
}


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A folder in the layout of the Hub's, with one variant as a .bin and one as safetensors."""
    folder = tmp_path_factory.mktemp("Moebius")
    torch.manual_seed(3)
    for variant, suffix in (("ft_places2", "bin"), ("ft_ffhq", "safetensors")):
        (folder / variant).mkdir()
        save_released(tiny_denoiser(), folder / variant / f"diffusion_pytorch_model.{suffix}")
    tiny_vae().save_pretrained(folder / "vae", safe_serialization=False)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(loading, "snapshot_download", refuse)
    monkeypatch.setattr("moebius.models.loading.hf_hub_download", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(("variant", "guidance"), [("ft_places2", 2.5), ("ft_ffhq", 2.0)])
def test_released_folders_load_without_a_network(released, no_network, variant, guidance):
    pipe = load(released, variant=variant, arch=ARCH)
    assert pipe.config.guidance_scale == guidance and variant in pipe.config.provenance
    image, mask = photograph(64, 64), box_mask(64, 64)
    result = run(pipe, image, mask)
    # The variant's own folder is enough; the codec lies beside it.
    other = load(released / variant, arch=ARCH)
    assert run(other, image, mask, guidance_scale=guidance).tobytes() == result.tobytes()


def test_released_pipelines_are_saved_as_ours(released, tmp_path):
    pipe = load(released, variant="ft_places2", arch=ARCH)
    pipe.save_pretrained(tmp_path)
    assert "ft_places2" in (tmp_path / "README.md").read_text()
    image, mask = photograph(64, 64), box_mask(64, 64)
    assert run(load(tmp_path), image, mask).tobytes() == run(pipe, image, mask).tobytes()


def test_a_variant_has_to_be_chosen(released):
    with pytest.raises(ValueError, match="choose variant ft_ffhq, ft_places2$"):
        load(released, arch=ARCH)
    with pytest.raises(ValueError, match="choose variant"):
        load(released, variant="ft_celebahq", arch=ARCH)


def test_another_architecture_is_one_clear_error(released):
    with pytest.raises(ValueError, match="does not fit the model") as caught:
        load(released, variant="ft_places2")
    assert "\n" not in str(caught.value)


def test_a_released_checkpoint_without_codec_names_the_remedy(released, tmp_path, no_network):
    (tmp_path / "ft_places2").symlink_to(released / "ft_places2")
    with pytest.raises(ValueError, match="no folder vae: name a codec, such as hustvl/PixelHacker"):
        load(tmp_path, variant="ft_places2", arch=ARCH)
    assert load(tmp_path, variant="ft_places2", arch=ARCH, codec=str(released / "vae"))


def test_pickled_objects_are_never_run(released, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was_run",)

    (tmp_path / "ft_places2").mkdir()
    (tmp_path / "vae").symlink_to(released / "vae")
    weights = tmp_path / "ft_places2" / "diffusion_pytorch_model.bin"
    weights.write_bytes(pickle.dumps({"diff_model.conv_in.weight": Evil()}))
    with pytest.raises(ValueError, match="nothing else is unpickled"):
        load(tmp_path, variant="ft_places2", arch=ARCH)
    assert not (tmp_path / "was_run").exists()


def test_the_hubs_layout_is_asked_for_by_name(released, monkeypatch):
    asked = []

    def download(repository, file, subfolder=None):
        asked.append((repository, file, subfolder))
        return str(released / subfolder / file)

    def codec(name, **options):
        asked.append(name)
        return load_codec(str(released / "vae"), **options)

    load_codec = loading.load_codec
    monkeypatch.setattr("moebius.models.loading.hf_hub_download", download)
    monkeypatch.setattr(loading, "load_codec", codec)
    pipe = load("hustvl/Moebius", variant="ft_places2", arch=ARCH, torch_dtype=torch.bfloat16)
    assert asked == [
        ("hustvl/Moebius", "diffusion_pytorch_model.bin", "ft_places2"),
        "hustvl/PixelHacker/vae",
    ]
    assert pipe.denoiser.dtype == pipe.vae.dtype == torch.bfloat16


def test_denoiser_folder_needs_a_codec_beside_it(pipeline, tmp_path):
    denoiser, vae = str(tmp_path / "denoiser"), str(tmp_path / "vae")
    pipeline.denoiser.save_pretrained(denoiser)
    pipeline.vae.save_pretrained(vae)
    with pytest.raises(ValueError, match="without codec"):
        InpaintPipeline.from_pretrained(denoiser)
    loaded = load(denoiser, codec=vae)
    image, mask = photograph(64, 32), box_mask(64, 32)
    assert run(loaded, image, mask).tobytes() == run(pipeline, image, mask).tobytes()


def test_another_codec_may_replace_the_saved_one(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "pipeline")
    torch.manual_seed(1)
    tiny_vae().save_pretrained(tmp_path / "vae")
    loaded = load(tmp_path / "pipeline", codec=str(tmp_path / "vae"))
    saved = AutoencoderKL.from_pretrained(tmp_path / "vae", low_cpu_mem_usage=False)
    assert torch.equal(loaded.vae.quant_conv.weight, saved.quant_conv.weight)


@pytest.mark.parametrize("name", ["no/such/folder", "nowhere"])
def test_missing_folder_is_one_clear_error(name):
    with pytest.raises(ValueError, match=f"model folder {name} not found"):
        InpaintPipeline.from_pretrained(name)


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "hello"},
        {"model_index.json": "{"},
        {"model_index.json": json.dumps({"_class_name": "StableDiffusionPipeline"})},
        {"config.json": "{}"},
        {"config.json": json.dumps({"_class_name": "AutoencoderKL"})},
    ],
    ids=["no model", "broken index", "other pipeline", "empty config", "other model"],
)
def test_folder_that_is_no_model_is_one_clear_error(tmp_path, files):
    with pytest.raises(ValueError, match=f"^{tmp_path} is not a model") as caught:
        InpaintPipeline.from_pretrained(fill_folder(tmp_path, files), codec="builtin")
    assert "\n" not in str(caught.value)


def test_truncated_weights_are_one_clear_error(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    weights = tmp_path / "denoiser" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"^{tmp_path} is not a model") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["denoiser", "vae"])
def test_weights_are_complete_or_refused(pipeline, tmp_path, part):
    pipeline.save_pretrained(tmp_path)
    weights = tmp_path / part / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["other"] = state.pop(min(state))
    save_file(state, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{part} are not its .*: 1 missing, .*; 1 unexpected, "):
        load(tmp_path)


def test_pickled_weights_are_not_read(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.rglob("*.bin"))
    with pytest.raises(ValueError, match="safetensors"):
        InpaintPipeline.from_pretrained(tmp_path)
