import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data

from moebius.inference.files import (
    check_fits,
    is_picture,
    output_format,
    read_picture,
    write_picture,
)

PHOTO = Image.fromarray(data.coffee()).resize((60, 40))


def with_alpha() -> Image.Image:
    image = PHOTO.copy()
    image.putalpha(Image.new("L", PHOTO.size, 0))
    return image


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_lossless_formats_keep_every_byte_even_under_transparent_pixels(tmp_path, suffix, mode):
    image = with_alpha() if mode == "RGBA" else PHOTO.convert(mode)
    write_picture(image, tmp_path / f"a{suffix}")
    back = read_picture(tmp_path / f"a{suffix}").convert(mode)
    assert back.tobytes() == image.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_colour_profiles_and_exif_data_are_written(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "maker"
    image = PHOTO.copy()
    image.info |= {"icc_profile": profile, "exif": exif.tobytes()}
    write_picture(image, tmp_path / f"a{suffix}")
    back = read_picture(tmp_path / f"a{suffix}")
    assert back.info["icc_profile"] == profile and back.getexif()[0x010F] == "maker"


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.jpg").write_text("before")
    with pytest.raises(ValueError, match="a.jpg: cannot be written as JPEG"):
        write_picture(with_alpha(), tmp_path / "a.jpg")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_files_of_16_bits_a_channel_are_refused_even_where_pillow_reads_them_as_8(tmp_path):
    deep = np.asarray(PHOTO).astype(np.uint16) * 257
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), deep)
        with pytest.raises(ValueError, match=f"{name}.*image has 16 bits"):
            read_picture(tmp_path / name)


def test_unreadable_files_are_named(tmp_path):
    PHOTO.save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    for name, data_ in {"cut.png": content[: len(content) // 2], "text.png": b"text"}.items():
        (tmp_path / name).write_bytes(data_)
        with pytest.raises(ValueError, match=f"{name}: cannot be read"):
            read_picture(tmp_path / name)
    with pytest.raises(ValueError, match=r"none.png: no such file"):
        read_picture(tmp_path / "none.png")


def test_suffixes(tmp_path):
    assert output_format(tmp_path / "a.JPG") == "JPEG" and is_picture(tmp_path / "a.JPG")
    assert not is_picture(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="unknown image suffix"):
        output_format(tmp_path / "a.xyz")


def test_alpha_is_refused_before_the_work_where_it_would_be_lost(tmp_path):
    check_fits(with_alpha(), tmp_path / "a.png")
    check_fits(PHOTO, tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="a.jpg: JPEG holds no alpha"):
        check_fits(with_alpha(), tmp_path / "a.jpg")
