"""Pictures from strangers: measured before they are decoded, refused in one line."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from moebius.inference.files import read_picture
from moebius.inference.photograph import KEPT_INFO


@dataclass(frozen=True)
class Limits:
    """The largest picture that is accepted.

    Raises:
        ValueError: a limit that lets nothing through.
    """

    megabytes: float = 30
    megapixels: float = 50

    def __post_init__(self) -> None:
        for name, value in (("megabytes", self.megabytes), ("megapixels", self.megapixels)):
            if value <= 0:
                raise ValueError(f"--max-{name} is {value:g}: use more than 0")

    @property
    def bytes(self) -> int:
        """Of one file."""
        return round(self.megabytes * 1e6)


def read_upload(path: Path, limits: Limits, what: str = "image") -> Image.Image:
    """Read a picture whose size is known to be harmless.

    Raises:
        ValueError: too large, no picture, or a broken one; `what` stands for the file's name.
    """
    if path.stat().st_size > limits.bytes:
        raise ValueError(f"the {what} has more than {limits.megabytes:g} megabytes")
    try:
        _check_pixels(path, limits, what)
        return read_picture(path, what)
    except ValueError as error:
        raise ValueError(str(error).replace(f"{path}: ", f"the {what} ")) from error


def decode_upload(data: bytes, limits: Limits, what: str) -> Image.Image:
    """`read_upload` of a file that is in memory."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(data)
        return read_upload(path, limits, what)


def encode_png(image: Image.Image) -> bytes:
    """A picture as a file, with the colour profile and EXIF data that it carries."""
    file = BytesIO()
    info = {key: image.info[key] for key in KEPT_INFO if key in image.info}
    image.save(file, format="PNG", **info)
    return file.getvalue()


def _check_pixels(path: Path, limits: Limits, what: str) -> None:
    """Reads the header alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise ValueError(_too_many(what, limits)) from error
    # Pillow's decoders answer broken files with nearly any exception.
    except Exception as error:
        raise ValueError(f"the {what} is no picture that can be read") from error
    if width * height > limits.megapixels * 1e6:
        raise ValueError(f"{_too_many(what, limits)}: it is {width}x{height}")


def _too_many(what: str, limits: Limits) -> str:
    return f"the {what} has more than {limits.megapixels:g} megapixels"
