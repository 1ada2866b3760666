"""Requests are checked as a whole, and filled together without harming each other."""

import io

import numpy as np
import pytest
import torch
from made_server import SIZE, hole, make_model, photo
from PIL import Image

from moebius.inference.pipeline import InpaintPipeline
from moebius.serving.orders import Order, Settings, fill_orders, read_order
from moebius.serving.uploads import Limits, encode_png

FILES = {"image": encode_png(photo()), "mask": encode_png(hole())}


@pytest.fixture(scope="module")
def pipeline() -> InpaintPipeline:
    return make_model()


def alone(pipeline: InpaintPipeline, seed: int, steps: int) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    result = pipeline(photo(), hole(), num_inference_steps=steps, generator=generator)
    return encode_png(result.images[0])


@pytest.mark.parametrize(
    ("files", "fields", "reason"),
    [
        ({"image": FILES["image"]}, {}, "mask is missing"),
        (FILES, {"prompt": "a cat"}, "'prompt' unknown"),
        (FILES, {"a\nb": "c"}, r"'a\\nb' unknown"),
        (FILES, {"../" * 9_000: "c"}, r"'[./]{60}\.\.\.' unknown"),
        (FILES, {"steps": "9" * 9_000}, r"steps is '9{60}\.\.\.': use"),
        (FILES, {"steps": "0"}, "steps is '0': use a number from 1 to 50"),
        (FILES, {"steps": "51"}, "steps is '51'"),
        (FILES, {"steps": "2.5"}, "steps is '2.5'"),
        (FILES, {"guidance": "nan"}, "guidance is 'nan'"),
        (FILES, {"seed": "-1"}, "seed is '-1'"),
        (FILES | {"mask": encode_png(hole().resize((9, 9)))}, {}, "the mask is 9x9 pixels"),
        (FILES | {"image": b"text"}, {}, "the image is no picture"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(files, fields, reason):
    with pytest.raises(ValueError, match=f"^{reason}") as caught:
        read_order(files, fields, Limits(), max_steps=50)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_a_request_is_read_with_its_defaults():
    order = read_order(FILES, {"seed": "7", "guidance": "1.5"}, Limits(), max_steps=50)
    assert (order.settings, order.seed) == (Settings(20, 1.5), 7)
    assert order.image.size == order.mask.size == SIZE


def test_the_mask_fits_a_photograph_as_it_stands_upright():
    sideways, exif = photo().rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    sideways.save(file, "JPEG", exif=exif)
    order = read_order(FILES | {"image": file.getvalue()}, {}, Limits(), max_steps=50)
    assert order.image.size == SIZE


def test_each_of_many_results_is_that_of_a_call_alone(pipeline: InpaintPipeline):
    asked = [(0, 1), (1, 2), (2, 1), (3, 2)]
    orders = [Order(photo(), hole(), Settings(steps), seed) for seed, steps in asked]
    results = fill_orders(pipeline, orders)
    assert results == [alone(pipeline, seed, steps) for seed, steps in asked]
    assert len(set(results)) == len(asked)


def test_requests_of_the_same_settings_share_one_call(pipeline: InpaintPipeline):
    calls = []

    def counted(images, *arguments, **options):
        calls.append(len(images))
        return pipeline(images, *arguments, **options)

    orders = [Order(photo(), hole(), Settings(steps), 0) for steps in (1, 2, 1)]
    fill_orders(counted, orders)  # type: ignore[arg-type]
    assert calls == [2, 1]


def test_one_that_fails_does_not_fail_the_others(pipeline: InpaintPipeline):
    cmyk = Image.fromarray(np.zeros((*SIZE[::-1], 4), np.uint8), "CMYK")
    good, bad = (Order(image, hole(), Settings(1), 5) for image in (photo(), cmyk))
    first, wrong, last = fill_orders(pipeline, [good, bad, good])
    assert first == last == alone(pipeline, 5, 1)
    assert isinstance(wrong, str) and "CMYK" in wrong
