"""Pages that stand alone: one HTML file with its data and pictures inside."""

import base64
import io
import json
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

PLACE = "/*data*/"
"""What a template has in its data script."""

LOSSLESS = 100


def fill_page(template: str, data: Any) -> str:
    """A page with data in it; scripts read it as JSON and show texts as texts.

    Args:
        template: folder under `assets` that holds `page.html`.
        data: anything JSON can hold. No text in it can end the script that it stands in.
    """
    page = (files("moebius") / "assets" / template / "page.html").read_text(encoding="utf-8")
    before, after = page.split(PLACE)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    return before + text.replace("<", "\\u003c") + after


def data_uri(image: np.ndarray, quality: int = LOSSLESS) -> str:
    """A picture (H, W, 3) uint8 as WebP in a data URI; quality 100 is lossless."""
    buffer = io.BytesIO()
    lossless = quality == LOSSLESS
    # Losslessly, quality is the encoder's effort.
    Image.fromarray(image).save(
        buffer, "WEBP", lossless=lossless, quality=50 if lossless else quality
    )
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
