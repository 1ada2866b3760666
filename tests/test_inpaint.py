"""The command: single photographs and folders, from the command line to files and exit codes."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from diffusers import AutoencoderKL
from PIL import Image
from skimage import data

from moebius import inpaint
from moebius.console import guard
from moebius.inference.pipeline import InpaintPipeline
from moebius.models.denoiser import build
from moebius.models.schedule import build_scheduler


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
    )
    denoiser = build(
        "lmi_dw_mixffn",
        widths=(32, 32, 32),
        depths=(1, 1, 1),
        lcg_dim=8,
        context_dim=8,
        latent_size=8,
        heads=2,
    )
    folder = tmp_path_factory.mktemp("model")
    InpaintPipeline(denoiser, vae, build_scheduler()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """Holds a photograph and masks, good and bad."""
    Image.fromarray(data.coffee()[:90, :120]).save(tmp_path / "photo.png")
    mask = Image.new("L", (120, 90))
    mask.paste(255, (30, 20, 70, 60))
    mask.save(tmp_path / "mask.png")
    mask.crop((0, 0, 60, 90)).save(tmp_path / "narrow.png")
    whole = (tmp_path / "photo.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    return tmp_path


@pytest.fixture
def photos(folder) -> Path:
    """photos/{a.png, b.jpg, c.png} and masks/{a.png, b.png, c.png}, which is of another size."""
    for name, top in {"a.png": 0, "b.jpg": 90, "c.png": 180}.items():
        (folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(data.coffee()[top : top + 90, :120]).save(folder / "photos" / name)
    (folder / "masks").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "masks" / name).write_bytes((folder / "mask.png").read_bytes())
    (folder / "masks" / "c.png").write_bytes((folder / "narrow.png").read_bytes())
    return folder


@pytest.fixture
def command(model, folder, monkeypatch):
    """Runs the command in `folder` and returns its exit code."""

    def run(photo="photo.png", mask="mask.png", *flags, output="out.png", **options):
        arguments = [photo, *([] if mask is None else [mask]), "-o", output, *flags]
        for name, value in ({"steps": 2, "device": "cpu", "model": model} | options).items():
            arguments += [f"--{name.replace('_', '-')}", value]
        with pytest.raises(SystemExit) as caught:
            guard(
                lambda: sys.exit(
                    inpaint.main(tyro.cli(inpaint.Options, args=[str(a) for a in arguments]))
                )
            )
        return caught.value.code

    monkeypatch.chdir(folder)
    return run


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_fills_the_hole_and_nothing_else(command, capsys):
    assert command(output="deep/er/out.png", dilation=0) == 0
    before, after = pixels("photo.png"), pixels("deep/er/out.png")
    hole = pixels("mask.png")[..., 0] > 0
    assert np.array_equal(before[~hole], after[~hole])
    assert (before[hole] != after[hole]).any(axis=-1).mean() > 0.9
    assert "deep/er/out.png" in capsys.readouterr().out


def test_the_seed_is_obeyed_and_several_results_follow_it(command):
    for output, seed in {"a.png": 0, "b.png": 0, "c.png": 1}.items():
        command(output=output, seed=seed)
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    assert not np.array_equal(pixels("a.png"), pixels("c.png"))
    assert command(output="n.png", num_images=2) == 0
    assert np.array_equal(pixels("n_1.png"), pixels("a.png"))
    assert np.array_equal(pixels("n_2.png"), pixels("c.png"))


def test_boxes_and_inverted_masks(command):
    command(output="mask.out.png")
    assert command("photo.png", None, output="box.png", box="30,20,70,60") == 0
    assert np.array_equal(pixels("box.png"), pixels("mask.out.png"))
    Image.fromarray(255 - pixels("mask.png")).save("inverted.png")
    assert command("photo.png", "inverted.png", "--invert", output="inverted.out.png") == 0
    assert np.array_equal(pixels("inverted.out.png"), pixels("mask.out.png"))
    boxes = ["--box", "0,0,9,9", "--box", "80,60,120,90"]
    assert command("photo.png", None, *boxes, output="boxes.png", dilation=0) == 0
    changed = (pixels("boxes.png") != pixels("photo.png")).any(axis=-1)
    assert changed[:9, :9].mean() > 0.9 and changed[60:, 80:].mean() > 0.9
    assert changed.sum() <= 9 * 9 + 40 * 30


def test_masks_of_another_size_are_fitted_where_asked(command):
    Image.open("mask.png").resize((60, 45), 0).save("small.png")
    assert command(mask="small.png") == 2
    assert command("photo.png", "small.png", "--fit-mask") == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_denoiser_runs_in_the_precision_that_is_asked_for(command, dtype, monkeypatch):
    load, loaded = inpaint.load, []
    monkeypatch.setattr(inpaint, "load", lambda options: loaded.append(load(options)) or loaded[0])
    assert command(dtype=dtype) == 0
    assert loaded[0].denoiser.dtype == getattr(torch, dtype)
    assert loaded[0].vae.dtype == torch.float32


@pytest.mark.parametrize(
    ("suffix", "file_format"), [("jpg", "JPEG"), ("webp", "WEBP"), ("TIF", "TIFF")]
)
def test_the_suffix_chooses_the_format(command, suffix, file_format):
    command(output=f"out.{suffix}", steps=1)
    with Image.open(f"out.{suffix}") as image:
        assert image.format == file_format and image.size == (120, 90)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photo": "missing.png"}, "missing.png: no such file"),
        ({"mask": "missing.png"}, "missing.png: no such file"),
        ({"photo": "truncated.png"}, "truncated.png: cannot be read"),
        ({"photo": "text.png"}, "text.png: cannot be read"),
        ({"mask": "narrow.png"}, "the mask is 60x90 pixels and the image 120x90"),
        ({"model": "runs/no/model"}, "model folder runs/no/model not found"),
        ({"model": "."}, ". is not a model"),
        ({"output": "out.xyz"}, "out.xyz: unknown image suffix"),
        ({"output": "out"}, "out: unknown image suffix"),
        ({"output": "photo.png"}, "photo.png: would overwrite an input"),
        ({"output": "./mask.png"}, "mask.png: would overwrite an input"),
        ({"steps": 0}, "--steps is 0"),
        ({"steps": 1001}, "--steps is 1001"),
        ({"num_images": 0}, "--num-images is 0"),
        ({"seed": 2**64 - 1}, "--seed is 18446744073709551615"),
        ({"mask": None}, "Give a mask, or --box"),
        ({"box": "1,2,3,4"}, "Give a mask, or --box"),
        ({"mask": None, "box": "1,2,3"}, "--box 1,2,3: give four integers"),
        ({"mask": None, "box": "500,2,600,4"}, "box (500, 2, 600, 4) holds no pixel"),
        ({"mask": "."}, "a folder of masks needs a folder of photographs"),
        ({"photo": ".", "output": "photo.png"}, "a folder of photographs needs a folder"),
        ({"dilation": -3}, "dilation is -3"),
        ({"strength": 1.5}, "strength is 1.5"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(command, folder, capsys, options, message):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    options = {"photo": "photo.png", "mask": "mask.png"} | options
    assert command(options.pop("photo"), options.pop("mask"), **options) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert inpaint.pick_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="cuda is not available"):
        inpaint.pick_device("cuda")


def test_an_empty_mask_is_said(command, caplog):
    Image.new("L", (120, 90)).save("mask.png")
    with caplog.at_level(logging.WARNING, logger="moebius"):
        assert command() == 0
    assert np.array_equal(pixels("out.png"), pixels("photo.png"))
    assert "mask is empty" in caplog.text


def test_a_folder_is_filled_although_one_photograph_fails(command, photos, capsys):
    Image.new("L", (4, 4)).save(photos / "masks" / "z.png")
    assert command("photos", "masks", output="out") == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]
    output = capsys.readouterr()
    assert "2 of 3 photographs filled, 0 were there already, 1 failed" in output.out
    assert "failed: photos/c.png: the mask is 60x90 pixels" in output.err
    assert "notice: masks/z.png: no photograph of this name" in output.err


def test_photographs_without_a_mask_are_listed(command, photos, capsys):
    (photos / "masks" / "b.png").unlink()
    (photos / "masks" / "c.png").unlink()
    assert command("photos", "masks", output="out") == 1
    errors = capsys.readouterr().err
    assert "photos/b.jpg: no mask b.*" in errors and "photos/c.png: no mask c.*" in errors
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


def test_a_resumed_folder_equals_one_that_was_done_at_once(command, photos, capsys):
    assert command("photos", "mask.png", output="whole", seed=3) == 0
    (photos / "out").mkdir()
    (photos / "out" / "a.png").write_bytes((photos / "whole" / "a.png").read_bytes())
    before = (photos / "out" / "a.png").stat().st_mtime_ns
    assert command("photos", "mask.png", output="out", seed=3) == 0
    assert "2 of 3 photographs filled, 1 were there already" in capsys.readouterr().out
    assert (photos / "out" / "a.png").stat().st_mtime_ns == before
    for path in (photos / "whole").iterdir():
        assert (photos / "out" / path.name).read_bytes() == path.read_bytes()
    assert command("photos", "mask.png", "--overwrite", output="out", seed=4) == 0
    assert not np.array_equal(pixels("out/a.png"), pixels("whole/a.png"))


def test_nothing_to_do_needs_no_model(command, photos):
    assert command("photos", "mask.png", output="out") == 0
    assert command("photos", "mask.png", output="out", model="no/model/at/all") == 0


def test_a_folder_that_cannot_be_begun_is_one_error(command, photos, capsys):
    assert command("photos", "masks", output="photos") == 2
    assert command("photos", "masks", output="out", model="no/model/at/all") == 2
    assert not Path("out").exists()
    assert len(capsys.readouterr().err.splitlines()) == 2
