"""The loop: resuming to the bit, batch arithmetic, subsets of losses, and what stops a run."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from moebius.config import Recipe, parse
from moebius.data.latents import CachedLatents
from moebius.distill.perceptual import ELatentLPIPS
from moebius.distill.run_folder import RunFolder
from moebius.distill.trainer import NonFiniteError, Trainer, batch_arithmetic, usable_workers
from moebius.distill.world import World
from moebius.models.denoiser import Denoiser, build

SIZES = {"latent_size": 8, "lcg_dim": 16, "context_dim": 8, "norm_groups": 8, "heads": 4}
STUDENT = {**SIZES, "widths": (8, 8, 16), "depths": (1, 1, 1)}
TEACHER = {**SIZES, "widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}
ONE = World(0, 1, torch.device("cpu"))


def recipe(**changes) -> Recipe:
    data = {
        "arch": "lmi_dw_mixffn",
        "model": STUDENT,
        "data": {"size": 64},
        "distill": {"losses": ["coarse", "fine", "task"]},
        "optimizer": {"lr": 1e-3, "ema": 0.9, "warmup": 4, "milestones": [8]},
        "training": {
            "steps": 4,
            "global_batch": 4,
            "log_every": 1,
            "checkpoint_every": 100,
        },
    }
    for key, value in changes.items():
        section = data.setdefault(key, {})
        data[key] = {**section, **value} if isinstance(section, dict) else value
    return parse(Recipe, data, "test")


class Codec:
    """Stands in where latents are cached already; only its factor is asked for."""

    factor = 8


def latents(count: int = 12) -> CachedLatents:
    generator = torch.Generator().manual_seed(0)
    moments = torch.rand(count, 2, 2, 4, 8, 8, generator=generator)
    return CachedLatents(
        {
            "clean": moments[:, 0],
            "masked": moments[:, 1],
            "mask": (torch.rand(count, 1, 8, 8, generator=generator) > 0.7).float(),
            "category": torch.arange(count) % 2,
        }
    )


def make_trainer(folder: Path, chosen: Recipe, world: World = ONE, **options) -> Trainer:
    torch.manual_seed(chosen.seed)
    student = build(chosen.arch, **chosen.model)
    torch.manual_seed(1)
    teacher: Denoiser | None = build("pixelhacker", **TEACHER)
    options = {"teacher": teacher, "metric": None, **options}
    run = RunFolder(folder)
    run.prepare(chosen)
    return Trainer(
        chosen,
        student,
        options["teacher"],
        latents(),
        Codec(),
        options["metric"],
        run,
        world,  # type: ignore[arg-type]
    )


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    shadow = {} if trainer.ema is None else dict(enumerate(trainer.ema.shadow_params))
    named = {f"ema.{n}": value.clone() for n, value in shadow.items()}
    return named | {k: v.clone() for k, v in trainer.student.state_dict().items()}


def test_stopped_and_resumed_is_the_same_run_to_the_bit(tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole", recipe(training={"steps": 30}))
    whole.run()
    first = make_trainer(tmp_path / "parts", recipe(training={"steps": 15}))
    first.run()
    second = make_trainer(tmp_path / "parts", recipe(training={"steps": 30}))
    second.run()
    assert second.step == 30
    expected, actual = weights(whole), weights(second)
    assert all(torch.equal(expected[key], actual[key]) for key in expected)
    lines = RunFolder(tmp_path / "parts").read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 31))
    reference = RunFolder(tmp_path / "whole").read_metrics()
    assert [line["loss/total"] for line in lines] == [line["loss/total"] for line in reference]


def test_metrics_of_steps_that_are_taken_again_are_not_doubled(tmp_path: Path) -> None:
    make_trainer(tmp_path, recipe(training={"steps": 4, "checkpoint_every": 2})).run()
    newest = tmp_path / "checkpoints" / "step_000004" / "student.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    again = make_trainer(tmp_path, recipe(training={"steps": 5, "checkpoint_every": 2}))
    again.run()
    steps = [line["step"] for line in RunFolder(tmp_path).read_metrics()]
    assert steps == [1, 2, 3, 4, 5]


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Of the last step: they are kept until the next one."""
    return {k: p.grad for k, p in trainer.student.named_parameters() if p.grad is not None}


def test_accumulation_has_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """Frozen BatchNorm, static weights: two micro-batches are one batch."""
    distill = {
        "balance": "static",
        "static_weights": {"coarse": 0.3, "fine": 0.5, "task": 1.0},
    }
    runs = []
    for micro in (4, 2):
        training = {"steps": 1, "micro_batch": micro, "batch_norm": "frozen"}
        trainer = make_trainer(tmp_path / str(micro), recipe(distill=distill, training=training))
        trainer.run()
        runs.append(gradients(trainer))
    assert_close(*runs)


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys() and a
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize(
    "losses",
    [["task"], ["coarse"], ["fine"], ["coarse", "perceptual"], ["fine", "task", "perceptual"]],
)
def test_any_subset_of_losses_trains(tmp_path: Path, losses: list[str]) -> None:
    metric = ELatentLPIPS("random") if "perceptual" in losses else None
    options = {} if {"coarse", "fine"} & set(losses) else {"teacher": None}
    chosen = recipe(distill={"losses": losses}, training={"steps": 2})
    trainer = make_trainer(tmp_path, chosen, metric=metric, **options)
    before = weights(trainer)
    trainer.run()
    assert any(not torch.equal(before[key], value) for key, value in weights(trainer).items())
    logged = RunFolder(tmp_path).read_metrics()[-1]
    assert {key for key in logged if key.startswith("loss/")} == {
        *(f"loss/{name}" for name in losses),
        "loss/total",
    }


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_forged_optimizer_runs_nothing(tmp_path: Path) -> None:
    """A run's folder from a stranger, its checksums right."""
    make_trainer(tmp_path, recipe(training={"steps": 1})).run()
    mark, saved = tmp_path / "it_ran", tmp_path / "checkpoints" / "step_000001"
    torch.save({"optimizer": Payload(mark)}, saved / "optimizer.pt")
    manifest = json.loads((saved / "manifest.json").read_text())
    forged = hashlib.sha256((saved / "optimizer.pt").read_bytes()).hexdigest()
    manifest["sha256"]["optimizer.pt"] = forged
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="optimizer.pt is no file of weights alone"):
        make_trainer(tmp_path, recipe(training={"steps": 2})).run()
    assert not mark.exists()


def test_a_missing_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need a teacher"):
        make_trainer(tmp_path, recipe(), teacher=None)


@pytest.mark.parametrize("losses", [["fine"], ["coarse"]])
@pytest.mark.parametrize(
    "shape", [{"in_channels": 33}, {"out_channels": 16}, {"context_length": 4}], ids=str
)
def test_a_teacher_of_the_wrong_shape_is_named(tmp_path: Path, shape, losses: list[str]) -> None:
    teacher = build("pixelhacker", **TEACHER, **shape)
    ((key, value),) = shape.items()
    with pytest.raises(ValueError, match=f"teacher pixelhacker has {key} {value}, student"):
        make_trainer(tmp_path, recipe(distill={"losses": losses}), teacher=teacher)


def test_sync_batch_norm_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_norm=sync needs GPUs"):
        make_trainer(tmp_path, recipe(training={"batch_norm": "sync"}))


def test_the_teacher_does_not_move(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, recipe())
    assert trainer.distill.teacher is not None
    teacher = trainer.distill.teacher.denoiser
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    trainer.run()
    assert not teacher.training
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_stops_with_step_term_and_checkpoint(tmp_path: Path, where: str) -> None:
    make_trainer(tmp_path, recipe(training={"steps": 2})).run()
    trainer = make_trainer(tmp_path, recipe(training={"steps": 4}))
    if where == "loss":
        step = trainer.distill
        trainer.distill = lambda batch: spoil(step(batch))  # type: ignore[assignment]
    else:
        trainer.denoiser.theta_f.register_hook(lambda gradient: gradient * float("nan"))
    term = "fine loss" if where == "loss" else "gradient norm|weight of the"
    with pytest.raises(NonFiniteError, match=f"step 3: the ({term}).*nan.*step_000002"):
        trainer.run()


def spoil(losses):
    losses.terms["fine"] = losses.terms["fine"] * float("nan")
    return losses


def test_frozen_batch_norm_keeps_its_statistics(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, recipe(training={"batch_norm": "frozen"}))
    before = {k: v.clone() for k, v in trainer.student.named_buffers()}
    trainer.run()
    assert all(torch.equal(before[k], v) for k, v in trainer.student.named_buffers())


def test_bf16_and_activation_checkpointing_train(tmp_path: Path) -> None:
    training = {"precision": "bf16", "activation_checkpointing": True, "steps": 3}
    trainer = make_trainer(tmp_path, recipe(training=training))
    assert trainer.run()["loss/total"] > 0
    assert trainer.denoiser.theta_f.dtype == torch.float32


def test_activation_checkpointing_takes_the_same_step(tmp_path: Path) -> None:
    results = []
    for switch in (False, True):
        chosen = recipe(training={"activation_checkpointing": switch, "steps": 1})
        trainer = make_trainer(tmp_path / str(switch), chosen)
        trainer.run()
        results.append(gradients(trainer) | dict(trainer.student.named_buffers()))
    assert_close(*results)


@pytest.mark.parametrize(
    ("total", "micro", "workers", "expected"),
    [(768, 48, 16, (48, 1)), (768, 12, 16, (12, 4)), (16, None, 2, (8, 1)), (16, 8, 4, (4, 1))],
)
def test_batch_arithmetic(total, micro, workers, expected) -> None:
    chosen = recipe(training={"global_batch": total, "micro_batch": micro})
    assert batch_arithmetic(chosen, workers) == expected


def test_batches_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match="does not divide among 3 workers"):
        batch_arithmetic(recipe(training={"global_batch": 16}), 3)
    with pytest.raises(ValueError, match="8 samples do not divide into micro-batches of 3"):
        chosen = recipe(training={"global_batch": 24, "micro_batch": 3})
        batch_arithmetic(chosen, 3)


def test_of_the_workers_that_are_there_the_batch_divides_among_the_most() -> None:
    chosen = recipe(training={"global_batch": 768, "micro_batch": 24})
    assert [usable_workers(chosen, there) for there in (1, 8, 9, 15, 16)] == [1, 8, 8, 8, 16]
