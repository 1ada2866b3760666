import pytest
import torch

from moebius.distill.losses import (
    LOSSES,
    coarse_loss,
    fine_loss,
    implied_clean,
    loss_terms,
    perceptual_loss,
    resolve_losses,
    task_loss,
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def l1(x, y, augment=False, generator=None):
    return (x - y).abs().mean((1, 2, 3))


@pytest.mark.parametrize("loss", [coarse_loss, fine_loss, task_loss])
def test_mean_squared_losses(loss):
    student, target = randn(2, 4, 3, 5).requires_grad_(), randn(2, 4, 3, 5, seed=1).requires_grad_()
    value = loss(student, target)
    torch.testing.assert_close(value, ((student - target) ** 2).sum() / 120)
    value.backward()
    assert student.grad is not None and target.grad is None  # nothing flows into a target
    with pytest.raises(
        ValueError, match=r"\(2, 4, 3, 5\) \(student\) and \(2, 4, 5, 3\) \(target\)"
    ):
        loss(student, target.mT)


def test_half_precision_is_compared_in_float32():
    assert fine_loss(randn(1, 4, 8, 8).bfloat16(), randn(1, 4, 8, 8)).dtype == torch.float32


def test_the_true_noise_implies_the_true_latent():
    clean, noise, alpha = (
        randn(3, 4, 6, 6),
        randn(3, 4, 6, 6, seed=1),
        torch.tensor([0.9, 0.5, 0.01]),
    )
    a = alpha[:, None, None, None]
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    torch.testing.assert_close(implied_clean(noise, noisy, alpha), clean, atol=1e-5, rtol=1e-5)
    assert perceptual_loss(l1, noise, noisy, clean, alpha) < 1e-5
    # An error e of the noise is an error e * sqrt((1 - abar) / abar) of the latent.
    off = perceptual_loss(l1, noise + 1, noisy, clean, alpha)
    torch.testing.assert_close(off, ((1 - alpha) / alpha).sqrt().mean())


def test_perceptual_passes_the_augmentation_on():
    seen = {}

    def metric(x, y, augment=False, generator=None):
        seen.update(augment=augment, generator=generator)
        return l1(x, y)

    x, alpha, generators = randn(2, 4, 4, 4), torch.tensor([0.5, 0.5]), [torch.Generator()] * 2
    assert perceptual_loss(metric, x, x, x, alpha, generator=generators).ndim == 0
    assert seen == {"augment": True, "generator": generators}


def test_terms_of_a_subset_and_nothing_else():
    x, y = randn(1, 4, 4, 4), randn(1, 4, 4, 4, seed=1)
    terms = loss_terms(["task"], x, noise=y)
    assert list(terms) == ["task"] and terms["task"].equal(task_loss(x, y))
    terms = loss_terms(
        set(LOSSES), x, noise=y, teacher_prediction=2 * y, student_feature=x,
        teacher_feature=3 * y, perceptual=lambda prediction: prediction.sum(),
    )  # fmt: skip
    assert tuple(terms) == LOSSES
    expected = [coarse_loss(x, 3 * y), fine_loss(x, 2 * y), task_loss(x, y), x.sum()]
    assert all(a.equal(b) for a, b in zip(terms.values(), expected, strict=True))


def test_errors_name_the_loss():
    with pytest.raises(ValueError, match="'coarse' needs student_feature and teacher_feature"):
        loss_terms(["coarse"], randn(1, 4, 4, 4))
    with pytest.raises(ValueError, match="Unknown loss 'fnie': choose from coarse, fine"):
        resolve_losses(["task", "fnie"])
    with pytest.raises(ValueError, match="No loss is on"):
        resolve_losses([])
    assert resolve_losses(["task", "coarse"]) == ("coarse", "task")
