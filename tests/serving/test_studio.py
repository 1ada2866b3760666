"""The page paints on a small copy; the photograph is filled in full size."""

from pathlib import Path

import numpy as np
import pytest
from made_server import make_model, photo
from PIL import Image

from moebius.inference.pipeline import InpaintPipeline
from moebius.serving.studio import SHOWN_SIDE, Choices, fill_photograph, painted_hole, show_upload
from moebius.serving.uploads import Limits


@pytest.fixture(scope="module")
def pipeline() -> InpaintPipeline:
    return make_model()


def layer(box: tuple[int, int, int, int], size: tuple[int, int] = (48, 40)) -> Image.Image:
    painted = Image.new("RGBA", size)
    painted.paste((224, 33, 138, 255), box)
    return painted


@pytest.mark.parametrize("layers", [[], [None], [Image.new("RGBA", (9, 9))]])
def test_nothing_painted_is_said(layers):
    with pytest.raises(ValueError, match="nothing is painted"):
        painted_hole(layers)


def test_layers_are_one_hole():
    hole = painted_hole([layer((0, 0, 4, 4)), None, layer((10, 10, 12, 12))])
    assert hole.shape == (40, 48) and hole.sum() == 16 + 4


def test_a_large_photograph_is_shown_smaller_and_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3200, 800)).save(tmp_path / "photo.jpg", exif=exif)
    shown = show_upload(tmp_path / "photo.jpg", Limits())
    assert (shown.size, shown.mode) == ((SHOWN_SIDE // 4, SHOWN_SIDE), "RGB")


@pytest.mark.parametrize("stem", ["a\nb", "..up", "a b;c", "é" * 100], ids=ascii)
def test_a_download_is_called_after_the_upload_and_lies_in_its_folder(
    tmp_path: Path, pipeline: InpaintPipeline, stem: str
):
    """Gradio keeps names of at most 200 bytes, without separators."""
    upload = tmp_path / f"{stem[:96]}.png"
    photo().save(upload)
    hole, choices = painted_hole([layer((15, 15, 25, 25))]), Choices(steps=1)
    told: list[int] = []
    filled = fill_photograph(
        pipeline, upload, hole, choices, Limits(), tmp_path, lambda step, number: told.append(step)
    )
    (full,) = filled.full
    assert full == filled.folder / f"{stem[:96]}_filled.png" and full.is_file()


def test_it_is_filled_in_full_size_and_outside_the_paint_nothing_changes(
    tmp_path: Path, pipeline: InpaintPipeline
):
    image = photo().convert("RGBA")
    image.putalpha(200)
    image.save(tmp_path / "photo.png")
    steps = []
    filled = fill_photograph(
        pipeline,
        tmp_path / "photo.png",
        painted_hole([layer((15, 15, 25, 25))]),  # half as large as the photograph
        Choices(steps=2, seed=4, count=2),
        Limits(),
        tmp_path,
        lambda step, number: steps.append((step, number)),
    )
    assert steps == [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert [path.name for path in filled.full] == ["photo_filled_1.png", "photo_filled_2.png"]
    first, second = (Image.open(path) for path in filled.full)
    assert (first.size, first.mode) == (image.size, "RGBA")
    assert first.tobytes() != second.tobytes()
    changed = (np.asarray(first) != np.asarray(image)).any(-1)
    assert changed[30:50, 30:50].mean() > 0.9
    changed[28:52, 28:52] = False  # the ring by which the hole is dilated
    assert not changed.any()
    filled.delete()
    assert not filled.folder.exists() and (tmp_path / "photo.png").exists()
