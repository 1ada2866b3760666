"""The training door: what a command line means, what it refuses, and a whole run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import moebius
from moebius.assembly import load_teacher, made_up, make_student, train_run
from moebius.recipes import read_recipe, teacher_folder, teacher_recipe
from moebius.train import Options, describe, main, missing_inputs, resolve_options


def test_arch_alone_means_the_builtin_recipe() -> None:
    recipe, folder = resolve_options(Options(arch="ll_il_dw_mixffn"))
    assert recipe.data.source == "builtin" and recipe.codec == "builtin"
    assert folder == Path("runs/builtin-lmi_dw_mixffn")
    assert missing_inputs(recipe) == []


def test_command_line_and_overrides_reach_the_recipe() -> None:
    options = Options(
        overrides=("distill.losses=[fine,task]", "training.steps=7"),
        data="photos",
        teacher="teacher_folder",
        codec="hustvl/PixelHacker/vae",
    )
    recipe, _ = resolve_options(options)
    assert recipe.distill.losses == ["fine", "task"]
    assert recipe.training.steps == 7
    assert recipe.teacher is not None and recipe.teacher.path == "teacher_folder"
    assert (recipe.data.source, recipe.codec) == ("photos", "hustvl/PixelHacker/vae")


def test_the_papers_recipe_asks_for_what_it_lacks() -> None:
    recipe, _ = resolve_options(Options(recipe="paper"))
    names = " ".join(missing_inputs(recipe))
    for option in ("--data", "--teacher", "--codec", "--perceptual"):
        assert option in names
    assert recipe.training.steps == 138_000 and recipe.training.global_batch == 768
    assert recipe.optimizer.milestones == [111_000, 129_000]
    named = Options(recipe="paper", data="d", teacher="t", codec="c", perceptual="p")
    assert missing_inputs(resolve_options(named)[0]) == []


def test_a_wrong_key_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match="'training.step'; did you mean 'steps'"):
        resolve_options(Options(overrides=("training.step=7",)))


def test_dry_run_prints_configuration_counts_and_memory() -> None:
    console = Console(record=True, width=160)
    recipe, _ = resolve_options(Options(recipe="paper", teacher="hustvl/PixelHacker/pretrained"))
    describe(recipe, 16, console)
    text = console.export_text()
    assert "225,980,091 parameters" in text and "862,190,268 parameters" in text
    assert "768 = 16 workers x 2 micro-batches x 24" in text
    assert "105,984,000 samples" in text
    assert "GiB (estimate)" in text


@pytest.mark.parametrize("workers", ["5", "7:16", "8:15"])
def test_workers_among_whom_the_batch_does_not_divide_are_refused(workers: str) -> None:
    with pytest.raises(ValueError, match="global_batch 768 does not divide among (5|7|15) workers"):
        main(Options(recipe="paper", workers=workers, dry_run=True))


def test_teachers_are_named_by_their_own_recipe(tiny_recipe, tmp_path: Path) -> None:
    recipe = read_recipe(tiny_recipe)
    other = read_recipe(tiny_recipe, ["arch=gla_ca_conv_ffn", "distill.losses=[fine,task]"])
    changed = read_recipe(tiny_recipe, ["teacher.train.training.steps=4"])
    place = teacher_folder(recipe, tmp_path)
    assert place == teacher_folder(other, tmp_path) != teacher_folder(changed, tmp_path)
    own = teacher_recipe(recipe)
    assert own is not None and own.distill.losses == ["task"] and own.arch == "pixelhacker"
    assert teacher_recipe(read_recipe(tiny_recipe, ["distill.losses=[task]"])) is None


def test_random_perceptual_weights_are_called_made_up(tiny_recipe) -> None:
    overrides = ["distill.losses=[task,perceptual]", "distill.perceptual_weights=random"]
    assert made_up(read_recipe(tiny_recipe, overrides)) == ["E-LatentLPIPS weights"]
    assert made_up(read_recipe(tiny_recipe)) == []


def test_students_start_from_the_seed(tiny_recipe) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = (make_student(read_recipe(tiny_recipe)) for _ in range(2))
    c = make_student(read_recipe(tiny_recipe, ["seed=1"]))
    assert torch.equal(a.theta_c, b.theta_c) and not torch.equal(a.theta_c, c.theta_c)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_of_another_architecture_are_refused(tiny_recipe, tmp_path: Path) -> None:
    make_student(read_recipe(tiny_recipe, ["arch=gla_ca_conv_ffn"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"init_from .* does not fit the model: \d+ missing"):
        make_student(read_recipe(tiny_recipe, [f"init_from={tmp_path}"]))


def test_a_whole_run_in_this_process(tiny_recipe, tmp_path: Path) -> None:
    """Teacher, student, score, pictures, a model that inpaints; then the same command again."""
    recipe = read_recipe(tiny_recipe)
    teacher = teacher_recipe(recipe)
    assert teacher is not None
    with pytest.raises(ValueError, match="no model at"):
        load_teacher(recipe, tmp_path)
    train_run(teacher, teacher_folder(recipe, tmp_path), tmp_path)
    reports: list[dict[str, float]] = []
    result = train_run(recipe, tmp_path / "run", tmp_path, reports.append)
    assert [report["step"] for report in reports] == [2, 4, 6]
    assert {"psnr_hole", "ssim_hole", "loss/coarse", "weight/fine", "norm/output"} <= result.keys()
    assert Image.open(tmp_path / "run" / "samples" / "step_000006.png").width > 100
    assert np.load(tmp_path / "run" / "pictures.npy").shape == (2, 64, 64, 3)
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    saved = list((tmp_path / "run").rglob("*.safetensors"))
    modes = {path.stat().st_mode & 0o777 for path in saved}
    assert modes == {0o666 & (tmp_path / "run").stat().st_mode} and len(saved) > 2

    pipeline = moebius.InpaintPipeline.from_pretrained(tmp_path / "run" / "model")
    photo = Image.fromarray(np.full((50, 70, 3), 90, np.uint8))
    mask = Image.new("L", photo.size)
    mask.paste(255, (20, 10, 40, 30))
    out = np.asarray(pipeline(photo, mask, num_inference_steps=2, dilation=0).images[0])
    outside = np.asarray(mask) == 0
    assert (out[outside] == 90).all() and (out[~outside] != 90).any()

    checkpoints = tmp_path / "run" / "checkpoints"
    written = {path: path.stat().st_mtime_ns for path in checkpoints.iterdir()}
    again = train_run(recipe, tmp_path / "run", tmp_path)
    assert again == result
    assert written == {path: path.stat().st_mtime_ns for path in checkpoints.iterdir()}


def test_a_folder_of_another_run_is_refused(tiny_recipe, tmp_path: Path) -> None:
    task = ["distill.losses=[task]", "training.steps=1", "validation.pictures=0"]
    train_run(read_recipe(tiny_recipe, task), tmp_path / "run", tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(optimizer.lr\)"):
        changed = read_recipe(tiny_recipe, [*task, "optimizer.lr=0.5", "training.steps=2"])
        train_run(changed, tmp_path / "run", tmp_path)
