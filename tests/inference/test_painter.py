import numpy as np
import pytest
import torch
from skimage import data

from moebius.inference.painter import Painter
from moebius.models.schedule import build_scheduler

IMAGES = np.stack([data.astronaut()[y : y + 64, 100:164] for y in (0, 100, 200)])
HOLES = np.zeros((3, 64, 64), bool)
HOLES[:, 20:40, 20:40] = True


def paint(pipeline, steps=2, batch=2, strength=1.0, told=None):
    told = [] if told is None else told
    painter = Painter(
        pipeline.denoiser,
        pipeline.codec,
        build_scheduler(),
        torch.device("cpu"),
        num_inference_steps=steps,
        guidance_scale=1,
        noise_offset=0.0,
        batch_size=batch,
        callback=lambda index, timestep, latents: latents,
        announce=told.append,
    )
    generators = [torch.Generator().manual_seed(n) for n in range(3)]
    return painter.paint(IMAGES, HOLES, generators, IMAGES, strength)


def test_pictures_come_back_in_their_order_whatever_the_batch(pipeline):
    alone, together = paint(pipeline, batch=1), paint(pipeline, batch=3)
    assert alone.shape == IMAGES.shape and alone.dtype == np.uint8
    assert abs(alone.astype(int) - together).max() <= 1
    assert not np.array_equal(alone[0], alone[1])


def test_the_work_is_told_before_it_is_begun(pipeline):
    told = []
    paint(pipeline, steps=4, batch=2, strength=0.5, told=told)
    assert told == [2 * 2]


def test_a_picture_that_is_not_finite_is_refused(pipeline, monkeypatch):
    decode = pipeline.codec.decode
    monkeypatch.setattr(pipeline.codec, "decode", lambda latents: decode(latents) * float("nan"))
    with pytest.raises(FloatingPointError, match="codec in torch.float32"):
        paint(pipeline)
