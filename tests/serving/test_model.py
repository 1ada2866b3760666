"""The model that a server starts with when none is named."""

import torch
from made_server import hole, photo

from moebius.models.codec import load_codec
from moebius.serving.model import BUILTIN, find_model, load_model


def test_the_builtin_model_fills_a_hole():
    name = find_model(None)
    assert name == str(BUILTIN) and find_model("other") == "other"
    pipeline = load_model(name, None, "cpu")
    assert pipeline.config["guidance_scale"] == 1 and pipeline.dtype == torch.float32
    codec = load_codec("builtin").vae.state_dict()
    assert all(torch.equal(codec[key], value) for key, value in pipeline.vae.state_dict().items())
    image = photo()
    generator = torch.Generator().manual_seed(0)
    filled = pipeline(image, hole(), num_inference_steps=4, generator=generator).images[0]
    assert filled.size == image.size and filled != image


def test_the_builtin_model_is_small_and_says_where_it_comes_from():
    files = [path for path in BUILTIN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5e6
    card = (BUILTIN / "README.md").read_text()
    assert "apache-2.0" in card and "python -m moebius.train" in card
