"""Optuna in a sweep, without a cluster: what is proposed, told, remembered."""

from pathlib import Path
from typing import Any

import pytest

from moebius.config import Sweep, parse
from moebius.distill.run_folder import RunFolder
from moebius.sweeps.halving import mark_stopped
from moebius.sweeps.searching import Study, check_space, proposals
from moebius.sweeps.trials import Trial

BASE: dict[str, Any] = {
    "model": {"widths": [32] * 3, "depths": [1] * 3, "latent_size": 8, "lcg_dim": 8},
    "data": {"size": 64},
    "distill": {"losses": ["task"]},
    "training": {"steps": 10, "global_batch": 4},
    "validation": {"every": 2},
}
SPACE = {
    "optimizer.lr": {"loguniform": [1e-3, 1e-1]},
    "model.depths": {"choice": [[1, 1, 1], [1, 2, 1]]},
    "optimizer.warmup": {"int": [0, 5]},
    "optimizer.ema": {"uniform": [0.9, 0.99]},
}


def sweep_of(**fields: Any) -> Sweep:
    return parse(Sweep, {"name": "s", "recipe": BASE, **fields}, "sweep")


def finish(trial: Trial, **scores: float) -> None:
    run = RunFolder(trial.folder)
    run.prepare(trial.recipe)
    run.write_result({"step": trial.recipe.training.steps, **scores})


def search_of(trials: int = 6, space: Any = SPACE, **fields: Any) -> Sweep:
    pytest.importorskip("optuna")
    return sweep_of(search={"space": space, "trials": trials, "startup": 2, **fields})


def proposed(study: Study) -> tuple[int, Trial]:
    found = study.propose()
    assert found is not None
    return found


def test_points_lie_in_the_space_and_keep_their_names(tmp_path: Path):
    study = Study(search_of(), tmp_path)
    found = [proposed(study) for _ in range(6)]
    assert study.propose() is None and study.remaining == 0
    for number, trial in found:
        optimizer = trial.recipe.optimizer
        assert 1e-3 <= optimizer.lr <= 1e-1 and 0 <= optimizer.warmup <= 5
        assert optimizer.ema is not None and 0.9 <= optimizer.ema <= 0.99
        assert trial.recipe.model["depths"] in ([1, 1, 1], [1, 2, 1])
        assert trial.label.startswith(f"{number}: ")
        assert trial.folder == tmp_path / "trials" / str(number)
    assert Study(search_of(), tmp_path).trials() == dict(found)


def test_a_new_process_goes_on_and_repeats_nothing(tmp_path: Path):
    first = Study(search_of(), tmp_path)
    done, stopped, _, told = [proposed(first) for _ in range(4)]
    finish(told[1], psnr_hole=21.0)
    first.tell(*told)
    finish(done[1], psnr_hole=20.0)  # the process was killed before it told
    stopped[1].folder.mkdir(parents=True)
    mark_stopped(stopped[1].folder, {"step": 4, "psnr_hole": 9.0})
    second = Study(search_of(), tmp_path)
    assert second.unfinished() == [0, 1, 2]
    second.catch_up()
    assert second.unfinished() == [2] and second.remaining == 2
    assert [number for number, _ in second.folders()] == [2, 4, 5]
    states = [trial.state.name for trial in second.study.trials]
    assert states == ["COMPLETE", "PRUNED", "RUNNING", "COMPLETE"]
    assert second.study.best_value == 21.0
    rates = {trial.recipe.optimizer.lr for trial in first.trials().values()}
    number, fresh = proposed(second)
    assert number == 4 and fresh.recipe.optimizer.lr not in rates
    assert Study(search_of(trials=8), tmp_path).remaining == 3  # prolonged


@pytest.mark.parametrize("startup", [2, 6])
def test_a_search_that_was_killed_proposes_what_an_undisturbed_one_does(
    tmp_path: Path, startup: int
):
    """A process for every point, against one for all; each point is told before the next."""

    def points(out: Path, processes: int) -> list[dict[str, Any]]:
        sweep, found = search_of(startup=startup), []
        for number in range(6):
            if number % (6 // processes) == 0:
                study = Study(sweep, out)
            found.append(proposed(study))
            finish(found[-1][1], psnr_hole=20.0 - number)
            study.tell(*found[-1])
        return [trial.recipe.model_dump() for _, trial in found]

    undisturbed = points(tmp_path / "one", 1)
    assert points(tmp_path / "six", 6) == undisturbed
    assert len({recipe["optimizer"]["lr"] for recipe in undisturbed}) == 6


def test_points_do_not_depend_on_the_order_of_keys(tmp_path: Path):
    backwards = dict(reversed(SPACE.items()))
    a, b = (
        proposed(Study(search_of(space=space), tmp_path / name))[1].recipe
        for name, space in (("a", SPACE), ("b", backwards))
    )
    assert a == b


def test_a_point_is_kept_by_one_record(tmp_path: Path):
    """Killed between two records, a search would find half a point."""
    study = Study(search_of(), tmp_path)
    journal = tmp_path / "search.journal"
    before = len(journal.read_text().splitlines())
    proposed(study)
    assert len(journal.read_text().splitlines()) == before + 1


def test_failures_are_told_as_such(tmp_path: Path):
    study = Study(search_of(), tmp_path)
    crashed, empty = proposed(study), proposed(study)
    finish(empty[1], psnr_hole=float("nan"))
    study.tell(*crashed)
    study.tell(*empty)
    assert [trial.state.name for trial in study.study.trials] == ["FAIL", "FAIL"]


def test_a_second_objective_is_a_cost_to_lower(tmp_path: Path):
    study = Study(search_of(second_objective="params"), tmp_path)
    number, trial = proposed(study)
    finish(trial, psnr_hole=20.0)
    study.tell(number, trial)
    (best,) = study.study.best_trials
    assert best.values[0] == 20.0 and best.values[1] > 1000
    assert [d.name for d in study.study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_a_point_that_no_recipe_can_be_made_of_is_refused_and_replaced(tmp_path: Path):
    """Each choice is good by itself; together they are not."""
    space = {
        "model.widths": {"choice": [[32] * 3, [40] * 3]},
        "model.norm_groups": {"choice": [8, 16]},
    }
    sweep = search_of(trials=12, space=space)
    sweep = sweep.model_copy(
        update={"recipe": {**BASE, "model": {**BASE["model"], "norm_groups": 8}}}
    )
    check_space(sweep, tmp_path)
    study = Study(sweep, tmp_path)
    while study.propose() is not None:
        pass
    assert study.refused() and len(study.trials()) + len(study.refused()) == 12
    assert "width 40 is not a multiple of norm_groups 16" in study.refused()[0]
    assert len((tmp_path / "search.journal").read_text().splitlines()) == 1 + 12
    assert Study(sweep, tmp_path).refused() == study.refused()


def test_a_folder_of_another_search_is_refused(tmp_path: Path):
    Study(search_of(), tmp_path).propose()
    narrower = {**SPACE, "optimizer.warmup": {"int": [0, 3]}}
    for other in (search_of(space=narrower), search_of(second_objective="gmacs")):
        with pytest.raises(ValueError, match="holds a search of another space or objective"):
            Study(other, tmp_path)


@pytest.mark.parametrize(
    ("space", "fields", "said"),
    [
        ({"optimiser.lr": {"choice": [1]}}, {}, "unknown key 'optimiser'; did you mean 'optim"),
        ({"arch": {"choice": ["lmi_dw_ffn", "lmi_dw"]}}, {}, "unknown architecture 'lmi_dw'"),
        ({"optimizer.ema": {"uniform": [0.5, 1.5]}}, {}, "trial 'optimizer.ema=1.5'"),
        (SPACE, {"objective": {"metric": "fid", "mode": "min"}}, "not from 'fid'"),
        (
            {"distill.losses": {"choice": [["task"], ["fine", "task"]]}},
            {"recipe": {**BASE, "teacher": {"train": {}}}},
            "put coarse or fine into recipe.distill.losses",
        ),
    ],
)
def test_a_wrong_space_is_found_before_anything_runs(tmp_path: Path, space, fields, said: str):
    sweep = sweep_of(**{"search": {"space": space, "trials": 2}, **fields})
    with pytest.raises(ValueError) as caught:
        check_space(sweep, tmp_path)
    assert said in str(caught.value)


def test_points_share_the_recipes_teacher_whatever_they_vary(tmp_path: Path):
    taught = {**BASE, "distill": {"losses": ["fine", "task"]}, "teacher": {"train": {}}}
    study = Study(search_of().model_copy(update={"recipe": taught}), tmp_path)
    teachers = [proposed(study)[1].recipe.teacher for _ in range(3)]
    (path,) = {teacher.path for teacher in teachers if teacher is not None}
    assert path is not None and path.startswith(str(tmp_path / "teacher-"))


def test_ray_gets_what_was_cut_short_first_then_new_points(tmp_path: Path):
    pytest.importorskip("ray")
    from ray.tune.search import Searcher

    proposed(Study(search_of(trials=3), tmp_path))
    study = Study(search_of(trials=3), tmp_path)
    asked = proposals(study, lambda trial: {"folder": trial.folder.name})
    assert [asked.suggest(f"id{n}") for n in range(3)] == [
        {"job": {"folder": str(number)}} for number in range(3)
    ]
    assert asked.suggest("id3") == Searcher.FINISHED
    finish(study.trials()[1], psnr_hole=20.0)
    asked.on_trial_complete("id1", {"step": 10})
    assert study.unfinished() == [0, 2] and study.study.best_value == 20.0
