"""The graph from picture to picture, against the same steps in PyTorch."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from skimage import data

from moebius.deploy.onnx_files import open_session
from moebius.deploy.onnx_pipeline import read_schedule
from moebius.inference.sampler import sample_latents
from moebius.models.latents import latent_mask
from moebius.models.schedule import build_scheduler, draw_noise


@pytest.fixture(scope="module")
def session(exported):
    return open_session(exported / "pipeline.onnx")


def by_pytorch(pipeline, images, masks, steps: int) -> np.ndarray:
    """Whole pictures, of images padded to multiples of 32."""
    height, width = images.shape[1:3]
    over = ((0, 0), (0, -height % 32), (0, -width % 32))
    padded = torch.from_numpy(np.pad(images, (*over, (0, 0)), mode="reflect"))
    pixels = padded.permute(0, 3, 1, 2) / 127.5 - 1
    mask = torch.from_numpy(np.pad(masks, over) > 127)[:, None].float()
    with torch.no_grad():
        latents = sample_latents(
            pipeline.denoiser,
            pipeline.codec.encode(pixels * (1 - mask)),
            latent_mask(mask, 8),
            build_scheduler(),
            generators=generators(len(images)),
            num_inference_steps=steps,
            guidance_scale=2.5,
        )
        decoded = pipeline.codec.decode(latents)[..., :height, :width]
    return ((decoded + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize(
    ("batch", "height", "width", "steps"), [(1, 64, 64, 20), (2, 70, 91, 3), (1, 33, 129, 7)]
)
def test_the_graph_paints_what_pytorch_paints(session, pipeline, batch, height, width, steps):
    images = np.stack([data.coffee()[50 * i :][:height, :width] for i in range(batch)])
    masks = np.zeros((batch, height, width), np.uint8)
    masks[:, 5:30, 12:50] = 255
    masks[:, 0, 0] = 127  # known: white starts at 128
    cells = [-(-side // 32) * 4 for side in (height, width)]
    inputs = {
        "image": images,
        "mask": masks,
        "noise": draw_noise((batch, 4, *cells), generators(batch)).numpy(),
        "steps": np.array(steps),
        "guidance_scale": np.array(2.5, np.float32),
    }
    (result,) = session.run(None, inputs)
    assert result.dtype == np.uint8 and result.shape == images.shape
    hole = masks > 127
    assert (result[~hole] == images[~hole]).all()
    assert (result[hole] != images[hole]).mean() > 0.5
    error = (result[hole] - by_pytorch(pipeline, images, masks, steps)[hole]) ** 2
    assert error.mean() < 255**2 * 1e-6  # 60 dB


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type 'v_prediction'.*'epsilon' only"),
        ({"timestep_spacing": "trailing"}, "timestep_spacing 'trailing'.*'leading' only"),
    ],
)
def test_another_schedule_is_refused(change, line):
    with pytest.raises(ValueError, match=line):
        read_schedule(DDIMScheduler.from_config(build_scheduler().config, **change))


def test_another_scheduler_of_the_same_noise_gives_the_same_constants():
    ours = read_schedule(build_scheduler())
    theirs = read_schedule(EulerDiscreteScheduler.from_config(build_scheduler().config))
    assert (ours.alphas == theirs.alphas).all() and len(ours.alphas) == 1000
    assert (ours.final_alpha, ours.offset) == (1.0, 0)
