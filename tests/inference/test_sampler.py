import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)

from moebius.inference.sampler import executed_steps, sample_latents
from moebius.models.denoiser import build
from moebius.models.schedule import build_scheduler, draw_noise

TINY = {
    "widths": (32, 32, 32),
    "lcg_dim": 8,
    "context_dim": 8,
    "latent_size": 8,
    "heads": 2,
}


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class Fake(torch.nn.Module):
    """Records its calls and answers with `answer(sample, timestep, ids)`."""

    def __init__(self, answer):
        super().__init__()
        self.architecture = SimpleNamespace(context_length=10)
        self.answer = answer
        self.calls = []
        self.eval()

    def forward(self, sample, timestep, ids):
        self.calls.append((sample, int(timestep), ids))
        return SimpleNamespace(sample=self.answer(sample, int(timestep), ids))


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_an_oracle_of_the_noise_brings_back_the_clean_latents(steps):
    clean = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(5))
    scheduler = build_scheduler()

    def noise_in(sample, timestep, ids):
        alpha = scheduler.alphas_cumprod[timestep]
        return (sample[:, :4] - alpha.sqrt() * clean.repeat(len(sample) // 2, 1, 1, 1)) / (
            1 - alpha
        ).sqrt()

    masked, mask = torch.zeros_like(clean), torch.ones(2, 1, 8, 12)
    result = sample_latents(
        Fake(noise_in),
        masked,
        mask,
        scheduler,
        num_inference_steps=steps,
        generators=generators(0, 1),
    )
    torch.testing.assert_close(result, clean, rtol=0, atol=1e-4)


def test_one_guided_step_by_hand():
    """u + g (c - u), with c from ids 0-9 and u from ids 10-19, in one call of both."""
    denoiser = Fake(lambda sample, _, ids: ids[:, :1, None, None].expand(-1, 4, 8, 8) / 10 + 1.0)
    masked = torch.full((2, 4, 8, 8), 7.0)
    mask = torch.full((2, 1, 8, 8), 5.0)
    result = sample_latents(
        denoiser,
        masked,
        mask,
        build_scheduler(),
        num_inference_steps=1,
        guidance_scale=2.5,
        generators=generators(3, 4),
    )
    [(sample, timestep, ids)] = denoiser.calls
    assert timestep == 0 and sample.shape == (4, 9, 8, 8)
    assert ids.tolist() == 2 * [list(range(10, 20))] + 2 * [list(range(10))]
    noise = draw_noise((2, 4, 8, 8), generators(3, 4), 0.0357)
    expected_input = torch.cat([noise, mask, masked], dim=1)
    assert torch.equal(sample, expected_input.repeat(2, 1, 1, 1))
    conditional, unconditional = 1.0, 2.0
    predicted = unconditional + 2.5 * (conditional - unconditional)
    beta = 0.00085
    expected = (noise - beta**0.5 * predicted) / (1 - beta) ** 0.5
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_guidance_of_one_runs_one_branch():
    denoiser = Fake(lambda sample, *_: sample[:, :4])
    masked, mask = torch.zeros(1, 4, 8, 8), torch.ones(1, 1, 8, 8)
    sample_latents(
        denoiser,
        masked,
        mask,
        build_scheduler(),
        num_inference_steps=3,
        guidance_scale=1,
        generators=generators(0),
    )
    assert [len(sample) for sample, *_ in denoiser.calls] == [1, 1, 1]
    assert all(ids.tolist() == [list(range(10))] for *_, ids in denoiser.calls)


def test_noise_offset_is_one_number_per_image_and_channel():
    plain = draw_noise((1, 4, 8, 8), generators(9), 0.0)
    shifted = draw_noise((1, 4, 8, 8), generators(9), 0.5)
    difference = (shifted - plain)[0]
    assert difference.std(dim=(1, 2)).max() < 1e-6
    assert difference.mean(dim=(1, 2)).unique().numel() == 4


def test_a_picture_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    denoiser = build("lmi_dw_mixffn", **TINY).eval()
    masked = torch.randn(3, 4, 8, 12)
    mask = (torch.rand(3, 1, 8, 12) > 0.5).float()

    def run(rows, seeds):
        return sample_latents(
            denoiser,
            masked[rows],
            mask[rows],
            build_scheduler(),
            num_inference_steps=3,
            generators=generators(*seeds),
        )

    together, alone = run([0, 1, 2], [10, 11, 12]), run([2], [12])
    torch.testing.assert_close(together[2:], alone, rtol=0, atol=1e-4)
    assert not torch.allclose(run([2], [13]), alone, atol=1e-2)


def test_callback_sees_every_step_and_may_replace_the_latents():
    seen = []

    def callback(index, timestep, latents):
        seen.append((index, timestep))
        return torch.full_like(latents, 2.0) if index == 3 else latents

    result = sample_latents(
        Fake(lambda sample, *_: sample[:, :4]),
        torch.zeros(1, 4, 8, 8),
        torch.ones(1, 1, 8, 8),
        build_scheduler(),
        num_inference_steps=4,
        generators=generators(0),
        callback=callback,
    )
    assert seen == [(0, 750), (1, 500), (2, 250), (3, 0)]
    assert torch.equal(result, torch.full((1, 4, 8, 8), 2.0))


def test_bad_calls_are_refused():
    denoiser = Fake(lambda sample, *_: sample[:, :4])
    masked, mask = torch.zeros(2, 4, 8, 8), torch.ones(2, 1, 8, 8)
    with pytest.raises(ValueError, match="1 generators for 2 images"):
        sample_latents(denoiser, masked, mask, build_scheduler(), generators=generators(0))
    with pytest.raises(ValueError, match="guidance_scale is nan"):
        sample_latents(
            denoiser,
            masked,
            mask,
            build_scheduler(),
            generators=generators(0, 1),
            guidance_scale=math.nan,
        )
    with pytest.raises(ValueError, match=r"eval\(\)"):
        sample_latents(
            denoiser.train(), masked, mask, build_scheduler(), generators=generators(0, 1)
        )


def clean_latents() -> torch.Tensor:
    return torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(5))


def oracle(clean: torch.Tensor) -> Fake:
    """Predicts the noise that leads back to the clean latents."""
    alphas = build_scheduler().alphas_cumprod

    def noise_in(sample, timestep, ids):
        alpha = alphas[timestep]
        return (sample[:, :4] - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    return Fake(noise_in)


def sample(denoiser, scheduler, clean, seeds=(0, 1), **options):
    return sample_latents(
        denoiser,
        torch.zeros_like(clean),
        torch.ones(2, 1, 8, 12),
        scheduler,
        generators=generators(*seeds),
        guidance_scale=1,
        **options,
    )


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_schedulers_of_diffusers_are_exchangeable(kind, strength):
    clean = clean_latents()
    scheduler = kind.from_config(build_scheduler().config)
    result = sample(
        oracle(clean), scheduler, clean, num_inference_steps=10, start=clean, strength=strength
    )
    torch.testing.assert_close(result, clean, rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", [DDPMScheduler, EulerAncestralDiscreteScheduler])
def test_stochastic_schedulers_draw_from_the_given_generators(kind):
    clean, scheduler = clean_latents(), kind.from_config(build_scheduler().config)
    state = torch.get_rng_state()
    fake = Fake(lambda sample, *_: 0.5 * sample[:, :4])
    first, again, other = (
        sample(fake, scheduler, clean, seeds, num_inference_steps=4)
        for seeds in ((0, 1), (0, 1), (0, 2))
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, again) and torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_strength_starts_from_the_noised_picture_as_in_the_release():
    """.99 of 20 steps is 19, from t = 900, with .119 of the picture and .993 of the noise."""
    clean, fake = clean_latents(), Fake(lambda sample, *_: sample[:, :4])
    sample(fake, build_scheduler(), clean, start=clean, strength=0.99, num_inference_steps=20)
    assert [timestep for _, timestep, _ in fake.calls] == list(range(900, -1, -50))
    noise = draw_noise(clean.shape, generators(0, 1))
    expected = 0.119 * clean + 0.993 * noise
    torch.testing.assert_close(fake.calls[0][0][:, :4], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("steps", "strength", "executed"), [(20, 1.0, 20), (20, 0.99, 19), (20, 0.4, 8), (3, 0.34, 1)]
)
def test_executed_steps(steps, strength, executed):
    assert executed_steps(steps, strength) == executed


@pytest.mark.parametrize(
    ("steps", "strength", "message"),
    [
        (0, 1.0, "num_inference_steps is 0"),
        (20, 0.0, "strength is 0.0"),
        (20, 1.1, "strength is 1.1"),
        (20, 0.01, "leaves none"),
    ],
)
def test_schedules_without_a_step_are_refused(steps, strength, message):
    with pytest.raises(ValueError, match=message):
        executed_steps(steps, strength)


def test_the_denoiser_computes_in_its_own_precision():
    torch.manual_seed(0)
    denoiser, seen = build("lmi_dw_mixffn", **TINY).eval().to(dtype=torch.bfloat16), []
    denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    result = sample(denoiser, build_scheduler(), clean_latents(), num_inference_steps=1)
    assert seen == [torch.bfloat16] and result.dtype == torch.float32
