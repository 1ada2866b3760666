"""One distillation step: any subset of losses, a teacher that never changes."""

from itertools import chain, combinations
from typing import Any

import pytest
import torch
from torch import Tensor

import moebius
from moebius.config import Distill
from moebius.data.latents import LatentSample
from moebius.distill.batch import Noising, NoisyBatch
from moebius.distill.losses import LOSSES, implied_clean, loss_terms, perceptual_loss
from moebius.distill.step import DistillationStep, FrozenTeacher, StepLosses, Student
from moebius.distill.taps import Adapter
from moebius.models.denoiser import Denoiser

SUBSETS = list(chain.from_iterable(combinations(LOSSES, n) for n in range(1, 5)))
SMALL = {"lcg_dim": 8, "context_dim": 8, "latent_size": 8}


class L1:
    """Stands in for E-LatentLPIPS; notes what it was asked."""

    def __call__(
        self, x: Tensor, y: Tensor, augment: bool = False, generator: Any = None
    ) -> Tensor:
        self.augment, self.generator = augment, generator
        return (x - y).abs().mean((1, 2, 3))


def make(arch: str, stages: int) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stages)
        return moebius.build(arch, widths=[32] * stages, depths=[1] * stages, **SMALL)


@pytest.fixture
def student() -> Denoiser:
    return make("lmi_dw_mixffn", 3).eval()


@pytest.fixture(scope="module")
def teacher() -> Denoiser:
    return make("pixelhacker", 4)


@pytest.fixture(scope="module")
def batch() -> NoisyBatch:
    mean = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    both = torch.stack([mean, torch.full_like(mean, 0.1)], dim=1)
    mask = (mean[:, :1] > 0).float()
    latents = LatentSample(clean=both, masked=both, mask=mask, category=torch.tensor([0, 1]))
    return Noising(0, "uniform", 0.0357)(latents, [3, 4], torch.device("cpu"))


def take(
    student: Denoiser,
    teacher: Denoiser | None,
    batch: NoisyBatch,
    losses: tuple[str, ...],
    **options,
) -> StepLosses:
    config = Distill(losses=list(losses), **options.pop("config", {}))
    tap = config.teacher_tap or "up.0"
    frozen = None if teacher is None else FrozenTeacher(teacher, tap)
    metric = options.pop("metric", L1())
    step = DistillationStep(
        Student(student, config.student_tap or "down.2", options.pop("adapter", None)),
        student,
        frozen,
        config,
        metric,
        **options,
    )
    return step(batch)


@pytest.mark.parametrize("losses", SUBSETS, ids="+".join)
def test_a_loss_that_is_off_is_absent(student, teacher, batch, losses: tuple[str, ...]):
    needs_teacher = {"coarse", "fine"} & set(losses)
    taken = take(student, teacher if needs_teacher else None, batch, losses)
    assert tuple(taken.terms) == losses and set(taken.balanced.weights) == set(losses)
    total = sum(taken.balanced.weights[name] * term for name, term in taken.terms.items())
    torch.testing.assert_close(taken.balanced.total, total)
    taken.balanced.total.backward()
    assert next(student.unet.conv_in.parameters()).grad is not None
    # The coarse loss alone ends at its tap.
    reached = student.theta_f.grad is not None and bool(student.theta_f.grad.any())
    assert reached == (losses != ("coarse",))


def plain_balance(
    rule: str, terms: dict[str, Tensor], student: Denoiser
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 4 and 5 as they are written: a gradient through the whole graph for every norm."""
    squared = rule == "paper"

    def norm(loss: Tensor, anchor: torch.nn.Parameter) -> Tensor:
        return torch.autograd.grad(loss, anchor, retain_graph=True)[0].norm()

    def ratio(over: Tensor, under: Tensor, eps: float) -> Tensor:
        return (over / under) ** 2 if squared else over / (under + eps)

    output = [name for name in ("task", "fine", "perceptual") if name in terms]
    weights = {name: torch.tensor(1.0) for name in terms}
    for name in output[1:]:
        over, under = (norm(terms[n], student.theta_f) for n in (output[0], name))
        weights[name] = ratio(over, under, 1e-6)
    if "coarse" in terms and output:
        against = sum(weights[n] * terms[n] for n in (output if squared else output[:1]))
        over, under = (norm(loss, student.theta_c) for loss in (terms["coarse"], against))
        weights |= {n: weights[n] * ratio(over, under, 1e-4) for n in output}
    if not squared:
        factors = {"coarse": 0.01, "fine": 0.01, "task": 0.5, "perceptual": 0.5}
        weights = {name: factors[name] * weight for name, weight in weights.items()}
    return sum(weights[name] * term for name, term in terms.items()), weights


def plain_step(
    student: Denoiser,
    teacher: Denoiser,
    batch: NoisyBatch,
    config: Distill,
    adapter: Adapter | None = None,
) -> dict[str, Tensor]:
    """The weights of a step in its plain form; gradients are left in the parameters."""
    inputs = batch.sample, batch.timesteps, batch.category_ids
    ours = student(*inputs)
    with torch.no_grad():
        theirs = teacher.eval()(*inputs)
    feature = ours.features[config.student_tap or "down.2"]
    terms = loss_terms(
        config.losses,
        ours.sample,
        noise=batch.noise,
        teacher_prediction=theirs.sample,
        student_feature=feature if adapter is None else adapter(feature),
        teacher_feature=theirs.features[config.teacher_tap or "up.0"],
        perceptual=lambda noise: perceptual_loss(
            L1(), noise, batch.noisy, batch.clean, batch.alphas
        ),
    )
    total, weights = plain_balance(config.balance, terms, student)
    total.backward()
    return weights


def gradients(*modules: torch.nn.Module | None) -> dict[str, Tensor]:
    """Taken from the parameters of both, which are left without."""
    named = [(f"{i}.{k}", p) for i, m in enumerate(modules) if m for k, p in m.named_parameters()]
    taken = {name: p.grad for name, p in named if p.grad is not None}
    for _, parameter in named:
        parameter.grad = None
    return taken


@pytest.mark.parametrize(
    ("rule", "losses"),
    [("paper", losses) for losses in SUBSETS if len(losses) != 2]
    + [("release", losses) for losses in (LOSSES, ("coarse", "task"), ("fine", "perceptual"))],
)
def test_one_pass_through_the_decoder_is_the_plain_form(student, teacher, batch, rule, losses):
    config = Distill(losses=list(losses), balance=rule)
    weights = plain_step(student, teacher, batch, config)
    expected = gradients(student)
    taken = take(student, teacher, batch, losses, config={"balance": rule})
    taken.balanced.total.backward()
    compare(gradients(student), expected, taken, weights)


@pytest.mark.parametrize("case", ["train", "checkpointed", "adapter", "in the decoder"])
def test_one_pass_is_the_plain_form_however_the_student_is_set_up(student, teacher, batch, case):
    adapter, taps = None, {}
    if case == "adapter":
        teacher = moebius.build("pixelhacker", widths=[32, 32, 64, 64], depths=[1] * 4, **SMALL)
        adapter = Adapter((32, 2, 2), (64, 2, 2))
    if case == "in the decoder":  # theta_C is behind the tap all the same
        taps = {"student_tap": "up.0", "teacher_tap": "up.1"}
    if case in ("train", "checkpointed"):
        student.train()
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    weights = plain_step(student, teacher, batch, Distill(losses=list(LOSSES), **taps), adapter)
    expected = gradients(student, adapter)
    buffers = {name: tensor.clone() for name, tensor in student.named_buffers()}
    student.load_state_dict(state)
    if case == "checkpointed":
        student.enable_gradient_checkpointing()
    taken = take(student, teacher, batch, LOSSES, config=taps, adapter=adapter)
    taken.balanced.total.backward()
    compare(gradients(student, adapter), expected, taken, weights)
    for name, buffer in student.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], msg=name)


def compare(actual, expected, taken: StepLosses, weights: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        torch.testing.assert_close(taken.balanced.weights[name], weight, rtol=1e-5, atol=0)
    assert actual.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() < 1e-5 * gradient.norm() + 1e-7 * largest, name


def test_gradients_accumulate_over_micro_batches(student, teacher, batch):
    for scale in (0.5, 0.25):
        (take(student, teacher, batch, LOSSES).balanced.total * scale).backward()
    both = gradients(student)
    take(student, teacher, batch, LOSSES).balanced.total.backward()
    for name, gradient in gradients(student).items():
        torch.testing.assert_close(both[name], 0.75 * gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_the_head_is_passed_once_and_freed(student, teacher, batch):
    """Eq. 4 and 5 by the paper's rule: one backward pass of the decoder, none left to take."""
    passes: list[str] = []
    decoder, encoder = student.unet.up_blocks[1], student.unet.down_blocks[0]

    def watch(name: str):
        def on_output(module, inputs, output) -> None:
            output = output[0] if isinstance(output, tuple) else output
            output.register_hook(lambda gradient: passes.append(name))

        return on_output

    decoder.register_forward_hook(watch("decoder"))
    encoder.register_forward_hook(watch("encoder"))
    total = take(student, teacher, batch, LOSSES).balanced.total
    assert passes == ["decoder"]
    total.backward()
    assert passes == ["decoder", "encoder"]


def test_the_terms_are_what_they_say(student, teacher, batch):
    metric = L1()
    taken = take(student, teacher, batch, LOSSES, metric=metric)
    with torch.no_grad():
        ours = student(batch.sample, batch.timesteps, batch.category_ids)
        theirs = teacher(batch.sample, batch.timesteps, batch.category_ids)
    coarse = (ours.features["down.2"] - theirs.features["up.0"]).square().mean()
    implied = implied_clean(ours.sample, batch.noisy, batch.alphas)
    expected = {
        "coarse": coarse,
        "fine": (ours.sample - theirs.sample).square().mean(),
        "task": (ours.sample - batch.noise).square().mean(),
        "perceptual": (implied - batch.clean).abs().mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(taken.terms[name].detach(), value, rtol=1e-4, atol=1e-6)
    # One generator a sample, so that a transform does not depend on the batch.
    assert metric.augment and metric.generator is batch.generators


def test_the_augmentation_can_be_switched_off(student, batch):
    metric = L1()
    take(student, None, batch, ("perceptual",), metric=metric, config={"perceptual_augment": False})
    assert not metric.augment


def test_the_teacher_stays_as_it_is(student, batch):
    own = make("pixelhacker", 4).train()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    student.train()
    take(student, own, batch, ("coarse", "fine")).balanced.total.backward()
    assert not own.training and all(not module.training for module in own.modules())
    assert all(p.grad is None and not p.requires_grad for p in own.parameters())
    # BatchNorm's averages would move in training mode.
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    assert student.training
    changed = [
        name for name, p in student.named_parameters() if p.grad is not None and p.grad.any()
    ]
    assert changed


def test_a_missing_teacher_or_metric_is_an_error(student, batch):
    with pytest.raises(ValueError, match="'fine' needs teacher_prediction"):
        take(student, None, batch, ("fine", "task"))
    with pytest.raises(AssertionError, match="needs its metric"):
        take(student, None, batch, ("perceptual",), metric=None)


def test_the_adapter_is_trained_with_the_student(student, batch):
    wide = moebius.build("pixelhacker", widths=[32, 32, 64, 64], depths=[1] * 4, **SMALL)
    with pytest.raises(ValueError, match="differ"):
        take(student, wide, batch, ("coarse",))
    adapter = Adapter((32, 2, 2), (64, 2, 2))
    assert set(Student(student, "down.2", adapter).state_dict()) >= {"adapter.conv.weight"}
    take(student, wide, batch, ("coarse", "task"), adapter=adapter).balanced.total.backward()
    assert adapter.conv.weight.grad is not None and adapter.conv.weight.grad.any()


def test_anchor_gradients_pass_through_reduce(student, teacher, batch):
    seen: list[torch.Size] = []

    def double(gradient: Tensor) -> Tensor:
        seen.append(gradient.shape)
        return 2 * gradient

    plain = take(student, teacher, batch, LOSSES)
    doubled = take(student, teacher, batch, LOSSES, reduce=double)
    assert set(seen) == {student.theta_f.shape, student.theta_c.shape}
    for name, norm in plain.balanced.norms.items():
        torch.testing.assert_close(doubled.balanced.norms[name], 2 * norm, rtol=1e-4, atol=1e-6)


def test_static_weights_reach_the_balance(student, batch):
    static = {"balance": "static", "static_weights": {"task": 3.0}}
    taken = take(student, None, batch, ("task",), config=static)
    torch.testing.assert_close(taken.balanced.total, 3 * taken.terms["task"])


def test_autocast_runs_the_networks_in_bfloat16_and_the_losses_in_float32(student, teacher, batch):
    exact = take(student, teacher, batch, LOSSES)
    mixed = take(student, teacher, batch, LOSSES, autocast=True)
    for name, term in mixed.terms.items():
        assert term.dtype == torch.float32
        difference = (term - exact.terms[name]).abs() / exact.terms[name]
        assert 0 < difference < 0.1
