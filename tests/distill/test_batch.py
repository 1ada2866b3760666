"""Noisy batches: seeded by the sample's number, and the formulas of diffusion."""

import numpy as np
import pytest
import torch

from moebius.data.latents import LatentSample
from moebius.distill.batch import Noising, NoisyBatch

CPU = torch.device("cpu")
FIELDS = ("clean", "noise", "noisy", "sample", "timesteps", "alphas", "category_ids")


def moments(count: int, std: float = 0.5) -> LatentSample:
    mean = torch.randn(count, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    both = torch.stack([mean, torch.full_like(mean, std)], dim=1)

    mask = torch.zeros(count, 1, 6, 8)
    mask[..., 2:4, 3:6] = 1
    category = torch.arange(count) % 2
    return LatentSample(clean=both, masked=2 * both, mask=mask, category=category)


def pick(latents: LatentSample, rows: list[int]) -> LatentSample:
    return LatentSample(**{key: tensor[rows] for key, tensor in latents.items()})


def noise(numbers: list[int], latents: LatentSample | None = None, **options) -> NoisyBatch:
    settings = {"seed": 7, "timesteps": "uniform", "noise_offset": 0.1, **options}
    return Noising(**settings)(latents or moments(len(numbers)), numbers, CPU)


@pytest.mark.parametrize("timesteps", ["uniform", "logit_normal"])
def test_a_sample_depends_on_its_number_and_not_on_its_batch(timesteps: str):
    latents = moments(4)
    whole = noise([5, 6, 10**12, 8], latents, timesteps=timesteps)
    for rows, numbers in (([2], [10**12]), ([3, 0], [8, 5])):
        part = noise(numbers, pick(latents, rows), timesteps=timesteps)
        for field in FIELDS:
            assert torch.equal(getattr(part, field), getattr(whole, field)[rows]), field
        # What is drawn later, too.
        after = [torch.rand((), generator=g) for g in part.generators]
        fresh = noise(numbers, pick(latents, rows), timesteps=timesteps).generators
        assert after == [torch.rand((), generator=g) for g in fresh]


def test_numbers_and_seeds_differ():
    same = pick(moments(1), [0, 0])
    batch = noise([0, 1], same)
    assert not torch.equal(batch.noise[0], batch.noise[1])
    assert not torch.equal(batch.clean[0], batch.clean[1])
    assert not torch.equal(noise([0, 1], same, seed=8).noise, batch.noise)


def test_noisy_latents_follow_the_schedule():
    batch = noise(list(range(16)))
    # abar of the released schedule: betas linear in their square roots.
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = torch.tensor(np.cumprod(1 - betas))[batch.timesteps]
    torch.testing.assert_close(batch.alphas.double(), alphas, atol=1e-5, rtol=1e-4)
    a = batch.alphas[:, None, None, None]
    torch.testing.assert_close(batch.noisy, a.sqrt() * batch.clean + (1 - a).sqrt() * batch.noise)


def test_the_denoiser_sees_noise_mask_and_the_known_part():
    latents = moments(2, std=0.0)
    batch = noise([0, 1], latents)
    assert batch.sample.shape == (2, 9, 6, 8)
    assert torch.equal(batch.sample[:, :4], batch.noisy)
    assert torch.equal(batch.sample[:, 4:5], latents["mask"])
    assert torch.equal(batch.sample[:, 5:], latents["masked"][:, 0])
    assert torch.equal(batch.clean, latents["clean"][:, 0])
    assert batch.category_ids[0].tolist() == list(range(10))
    assert batch.category_ids[1].tolist() == list(range(10, 20))


def test_latents_are_drawn_from_their_posteriors():
    latents = moments(256, std=0.5)
    batch = noise(list(range(256)), latents)
    for drawn, key in ((batch.clean, "clean"), (batch.sample[:, 5:], "masked")):
        scale = 0.5 if key == "clean" else 1.0
        error = (drawn - latents[key][:, 0]) / scale  # type: ignore[literal-required]
        assert abs(error.mean()) < 0.02 and abs(error.std() - 1) < 0.02
    # The two draws are independent.
    a, b = (batch.clean - latents["clean"][:, 0]), (batch.sample[:, 5:] - latents["masked"][:, 0])
    assert abs((a * b).mean() / (a.std() * b.std())) < 0.02


def test_the_target_holds_the_noise_offset():
    numbers = list(range(400))
    plain = noise(numbers, noise_offset=0.0).noise
    offset = noise(numbers, noise_offset=0.5).noise
    # Drawn last and constant over a channel: the rest of the noise is the same.
    shift = offset - plain
    torch.testing.assert_close(shift, shift.mean((2, 3), keepdim=True).expand_as(shift))
    assert abs(shift[..., 0, 0].std() - 0.5) < 0.03
    assert abs(plain.std() - 1) < 0.01


def test_uniform_times_are_uniform():
    drawn = Noising(0, "uniform", 0.0)
    values = torch.stack([drawn._timestep(drawn._generator(n)) for n in range(4000)])
    assert values.dtype == torch.int64 and 0 <= values.min() < 10 and 990 <= values.max() < 1000
    quarters = torch.histc(values.float(), 4, 0, 1000) / 4000
    assert (quarters - 0.25).abs().max() < 0.03


def test_logit_normal_times_are_those_of_the_release():
    drawn = Noising(0, "logit_normal", 0.0)
    values = torch.stack([drawn._timestep(drawn._generator(n)) for n in range(4000)])
    assert values.min() >= 0 and values.max() <= 999
    # floor(1000 sigmoid(x)), x normal: 68.3 % between sigmoid(-1) and sigmoid(1), median 500.
    within = ((values >= 268.9) & (values < 731.1)).float().mean()
    assert abs(within - 0.683) < 0.03 and abs(values.float().median() - 500) < 25
    noisier = Noising(0, "logit_normal", 0.0, logit=(1.5, 0.5))
    values = torch.stack([noisier._timestep(noisier._generator(n)) for n in range(4000)])
    assert abs(values.float().median() - 817) < 15 and values.min() > 350
