import torch

from moebius.models.schedule import build_scheduler


def test_scheduler_follows_the_release():
    scheduler = build_scheduler()
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == list(range(950, -1, -50))
    assert scheduler.final_alpha_cumprod == 1
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), expected, rtol=1e-4, atol=1e-7)
