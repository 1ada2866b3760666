"""What a sweep costs: by hand for tiny recipes, and what is said about it."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from moebius.assembly import make_student
from moebius.config import Recipe
from moebius.distill.cost import (
    checkpoint_bytes,
    codec_macs,
    inpainting_cost,
    latents_bytes,
    model_bytes,
    sample_cost,
    update_cost,
)
from moebius.models.codec import load_codec
from moebius.models.denoiser import build
from moebius.planning.machines import Machine, Pace, load_machine, machine_names, measure_pace
from moebius.planning.networks import Networks
from moebius.planning.plan import (
    Plan,
    Scoring,
    bytes_text,
    duration_text,
    flops_text,
    plan,
    to_markdown,
    to_rich,
)
from moebius.planning.planner import _times
from moebius.recipes import read_recipe, teacher_folder, teacher_recipe

SLOW = Machine("slow", 1e9, {"bf16": 4e-6, "tf32": 2e-6, "fp32": 1e-6}, utilisation=0.5)


def tiny(tiny_recipe: dict[str, Any], **overrides: Any) -> Recipe:
    return read_recipe(tiny_recipe, {"distill.losses": ["task"], "data.cache": 0, **overrides})


def test_one_run_by_hand(tiny_recipe: dict[str, Any]):
    recipe = tiny(tiny_recipe)
    (run,) = plan([("one", recipe)], SLOW, workers=2).runs
    student, codec = make_student(recipe), load_codec("builtin")
    assert (run.steps, run.samples, run.devices, run.arch) == (6, 24, 2, "lmi_dw_mixffn")
    sample, update = sample_cost(recipe, student, None, codec), update_cost(recipe, student)
    score = inpainting_cost(student, codec, 64, 2, 1.0)
    # Both share the update; the first one scores two pairs, once.
    assert run.cost.total == pytest.approx(24 * sample.total + 6 * update.total + 2 * score.total)
    seconds = 12 * sample.flops["student"] / 0.5e6 + 12 * sample.flops["encoder"] / 1e6
    seconds += 3 * update.total / 2e6 + 2 * score.total / 0.5e6
    assert run.seconds == pytest.approx(seconds)
    assert run.device_hours == pytest.approx(2 * seconds / 3600)
    kept = 3 * checkpoint_bytes(recipe, student)  # two, and the next one while it is written
    assert run.disk == pytest.approx(kept + model_bytes(student) + model_bytes(codec.vae))


def test_bf16_runs_the_networks_faster_and_scoring_not(tiny_recipe: dict[str, Any]):
    runs = [
        ("fp32", tiny(tiny_recipe)),
        ("bf16", tiny(tiny_recipe, **{"training.precision": "bf16"})),
    ]
    full, half = plan(runs, SLOW).runs
    assert full.cost.flops == half.cost.flops
    student = full.cost.flops["student"]
    assert full.seconds - half.seconds == pytest.approx(student / 0.5e6 - student / 2e6)


def test_teachers_and_latents_are_planned_once_and_before_the_trials(tiny_recipe: dict[str, Any]):
    changes = {"distill.losses": ["fine", "task"], "data.cache": 16}
    runs = [
        (str(n), tiny(tiny_recipe, **changes, arch=a)) for n, a in enumerate(("lmi_dw_ffn",) * 2)
    ]
    planned = plan(runs, SLOW, cluster_workers=4)
    assert [run.label for run in planned.runs] == ["latents", "teacher", "0", "1"]
    latents, teacher, *_ = planned.runs
    codec = load_codec("builtin")
    assert latents.samples == 16 and latents.disk == latents_bytes(runs[0][1], codec)
    assert latents.cost.total == 2 * 2 * 16 * codec_macs(codec, 64)[0]
    assert (teacher.arch, teacher.steps, teacher.devices) == ("pixelhacker", 3, 4)
    assert "teacher" in planned.trials[0].cost.flops and "encoder" not in teacher.cost.flops


def test_stored_latents_run_no_encoder_and_are_counted_as_there(tiny_recipe: dict[str, Any]):
    online, stored = tiny(tiny_recipe), tiny(tiny_recipe, **{"data.latents": "s3://bucket/set"})
    planned = plan([("online", online), ("stored", stored)], SLOW)
    assert [run.label for run in planned.runs] == ["online", "stored"]
    a, b = planned.runs
    assert "encoder" not in b.cost.flops
    assert a.cost.total - b.cost.total == pytest.approx(a.cost.flops["encoder"])
    assert a.seconds > b.seconds
    assert any("Latents of data.latents are counted as there" in note for note in planned.notes)
    assert not any("data.latents are" in note for note in plan([("online", online)], SLOW).notes)


def test_a_promotion_goes_on_and_counts_the_sweeps_own_teacher(tiny_recipe: dict[str, Any]):
    trial = tiny(tiny_recipe, **{"distill.losses": ["fine", "task"]})
    path = str(Path("/nowhere") / teacher_folder(trial, Path()).name / "model")
    longer = {"distill.losses": ["fine", "task"], "training.steps": 16, "teacher": {"path": path}}
    planned = plan([("a", trial)], SLOW, promoted=tiny(tiny_recipe, **longer), promoted_from=6)
    promotion = planned.promotion
    assert promotion is not None and promotion.steps == 10 and promotion.samples == 40
    ours = planned.trials[0].cost.flops["teacher"] / 24
    assert promotion.cost.flops["teacher"] / 40 == pytest.approx(ours)  # not the 862M PixelHacker's


def test_scored_pictures_are_shared_by_the_workers(tiny_recipe: dict[str, Any]):
    recipe = tiny(tiny_recipe)
    scoring = Scoring(images=10, size=64, steps=3, guidance=2.0)
    without, with_ = (plan([("a", recipe)], SLOW, 2, scoring=s).runs[0] for s in (None, scoring))
    each = inpainting_cost(make_student(recipe), load_codec("builtin"), 64, 3, 2.0)
    assert with_.cost.total - without.cost.total == pytest.approx(10 * each.total)
    assert with_.seconds - without.seconds == pytest.approx(5 * each.total / 0.5e6)


@pytest.mark.parametrize(
    ("every", "first", "last", "count"),
    [(None, 0, 10, 1), (5, 0, 10, 2), (4, 0, 10, 3), (4, 4, 10, 2), (20, 0, 10, 1)],
)
def test_a_run_scores_at_every_interval_and_at_its_end(every, first: int, last: int, count: int):
    assert _times(every, first, last) == count


def test_trials_start_where_others_end(tiny_recipe: dict[str, Any]):
    lengths = (2, 2, 4, 6)
    runs = [(str(n), tiny(tiny_recipe, **{"training.steps": n})) for n in lengths]
    one, two = plan(runs, SLOW), plan(runs, SLOW, concurrent=2)
    seconds = [run.seconds for run in one.trials]
    assert one.seconds == pytest.approx(sum(seconds))
    assert two.seconds == pytest.approx(seconds[1] + seconds[3])  # 2+4 beside 2+6
    assert one.device_hours == two.device_hours == pytest.approx(sum(seconds) / 3600)


def test_what_does_not_fit_is_said(tiny_recipe: dict[str, Any]):
    runs = [("a", tiny(tiny_recipe))]
    notes = " ".join(plan(runs, SLOW).notes)
    assert "fit" not in notes and "launching" not in notes
    small = Machine("small", 1e6, SLOW.tflops)
    assert any(
        "Does not fit into the 1 MB of small: a;" in note for note in plan(runs, small).notes
    )


def test_an_indivisible_batch_is_refused(tiny_recipe: dict[str, Any]):
    with pytest.raises(ValueError, match="does not divide among 3 workers"):
        plan([("a", tiny(tiny_recipe))], SLOW, workers=3)


def test_the_papers_run_is_counted_where_nothing_is_named_yet():
    networks, recipe = Networks(), read_recipe("paper")
    assert networks.student(recipe).device.type == "meta"
    teacher = networks.teacher(recipe)
    assert teacher is not None and teacher.architecture.name == "pixelhacker"
    assert networks.codec(recipe).factor == 8 and networks.codec(recipe).channels == 4
    assert networks.notes == [
        "No teacher is named yet: counted as pixelhacker.",
        "Codec '' is not on this machine: counted as the SDXL VAE.",
    ]


def test_a_teacher_in_a_folder_is_counted_by_its_own_configuration(tmp_path: Path, tiny_recipe):
    saved = build("gla_ca_conv_ffn", **tiny_recipe["model"])
    saved.save_pretrained(tmp_path)
    changes = {"distill.losses": ["fine"], "teacher": {"path": str(tmp_path)}}
    teacher = Networks().teacher(tiny(tiny_recipe, **changes))
    assert teacher is not None and teacher.architecture == saved.architecture


def test_tables_say_units_totals_and_assumptions(tiny_recipe: dict[str, Any]):
    planned = plan([("a|b", tiny(tiny_recipe)), ("c", tiny(tiny_recipe))], load_machine("L40S"))
    text = to_markdown(planned)
    lines = text.splitlines()
    assert lines[0] == (
        "| Run | Arch. | Steps | Samples | FLOPs | GPU-hours | Lasts | Memory a worker | Disk |"
    )
    assert lines[2].startswith(r"| a\|b | lmi_dw_mixffn | 6 | 24 |")
    assert lines[4].startswith("| total of 2 |") and "| 12 | 48 |" in lines[4]
    assert "20% are assumed to be reached, not measured" in text
    assert "launching their kernels is not counted" in text
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_rich(planned, "title"))
    shown = console.export_text()
    for cell in ("GPU-hours", "total of 2", flops_text(planned.cost.total), "estimates: L40S"):
        assert cell in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (flops_text(4.34e20), "434 EFLOP"),
        (flops_text(9.999e14), "1 PFLOP"),
        (flops_text(5e6), "5 MFLOP"),
        (bytes_text(9.388e9), "9.39 GB"),
        (bytes_text(2e12), "2 TB"),
        (duration_text(7.02 * 86_400), "7.02 days"),
        (duration_text(5400), "1.5 h"),
        (duration_text(90), "1.5 min"),
        (duration_text(3), "3 s"),
    ],
)
def test_figures_have_units_and_three_digits(text: str, expected: str):
    assert text == expected


def test_machines_by_name_and_from_a_file(tmp_path: Path):
    assert machine_names() == ["L40S", "H100", "H200", "this"]
    l40s = load_machine("L40S")
    assert (l40s.memory, l40s.tflops["bf16"], l40s.unit) == (48e9, 362, "GPU-hours")
    sheet = {"memory": 80, "utilisation": 0.3, "tflops": {"bf16": 312, "tf32": 156, "fp32": 19.5}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"A100": sheet, "bad": {"memory": 80}}))
    assert load_machine(f"{path}:A100").utilisation == 0.3
    with pytest.raises(ValueError, match="unknown machine 'B7'; known: L40S, H100, H200, this"):
        load_machine("B7")
    with pytest.raises(ValueError, match="needs memory, utilisation and tflops of bf16, tf32"):
        load_machine(f"{path}:bad")


def test_this_machine_is_measured_in_a_few_real_steps(tiny_recipe: dict[str, Any]):
    recipe = tiny(tiny_recipe, **{"data.cache": 8})
    pace = measure_pace(recipe, *Networks().with_weights(recipe), limit=0)
    assert pace.batch == 1 and pace.sample_seconds > 0 and pace.update_seconds == 0
    pace = measure_pace(recipe, *Networks().with_weights(recipe), limit=60)
    assert pace.batch == 4 and pace.sample_seconds > 0 and pace.update_seconds >= 0


def test_a_measured_machine_is_planned_with_its_pace(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    measured = []

    def pace(recipe: Recipe, *networks: Any, limit: float) -> Pace:
        measured.append(recipe)
        return Pace(update_seconds=10, sample_seconds=1, batch=4)

    monkeypatch.setattr("moebius.planning.planner.measure_pace", pace)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    runs = [(str(n), tiny(tiny_recipe, seed=n)) for n in range(2)]
    planned: Plan = plan(runs, load_machine("this"), workers=2, concurrent=2)
    assert len(measured) == 1  # another seed takes as long
    first, second = planned.trials
    recipe, codec = runs[0][1], load_codec("builtin")
    student = make_student(recipe)
    sample = sample_cost(recipe, student, None, codec).total
    score = 2 * inpainting_cost(student, codec, 64, 2, 1.0).total / sample
    assert first.seconds == pytest.approx(24 * 1 + 6 * 10 + score)  # two workers share the CPU
    assert planned.seconds == pytest.approx(first.seconds + second.seconds)
    assert planned.machine.unit == "Hours" and "a few real steps" in planned.notes[0]


def test_a_teacher_named_by_path_is_planned_where_its_recipe_is_given(tiny_recipe: dict[str, Any]):
    base = tiny(tiny_recipe, **{"distill.losses": ["fine"]})
    own = teacher_recipe(base)
    assert own is not None
    path = str(Path("x") / teacher_folder(base, Path()).name / "model")
    trial = tiny(tiny_recipe, **{"distill.losses": ["fine"], "teacher": {"path": path}})
    planned = plan([("a", trial)], SLOW, taught_by=[base])
    assert [run.label for run in planned.runs] == ["teacher", "a"]
