"""Every sweep file of the repository is valid, and the paper's tables are whole."""

from pathlib import Path

import pytest

from moebius.config import load_yaml
from moebius.evaluation.published import published
from moebius.sweeps.scores import measured, missing_images, scorings
from moebius.sweeps.searching import check_space
from moebius.sweeps.standings import check_budget, check_objective, paper_row
from moebius.sweeps.trials import plan_trials, points, read_sweep

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "ablations").rglob("*.yaml"))


def sweep_of(name: str):
    return read_sweep(ROOT / "ablations" / f"{name}.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_sweep_of_the_repository_is_valid(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    if "name" not in load_yaml(path):
        pytest.skip("a base of other files")
    sweep = read_sweep(path)
    assert sweep.name == path.stem
    check_objective(sweep, measured(sweep.score))
    if sweep.model is not None:
        assert scorings(sweep)
        return
    trials = plan_trials(sweep, tmp_path)  # builds every architecture
    assert trials or sweep.search is not None
    if sweep.search is not None:
        check_space(sweep, tmp_path)
    check_budget(sweep, trials, {})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_head_says_what_it_asks_what_it_costs_and_what_to_name(path: Path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(head)
    if path.stem != "quickstart":
        assert "?" in text or "in the small" in text
        assert "Cost: " in text
    sweep = read_sweep(path)
    assert all(name.split("=")[0] in text for name in missing_images(sweep.score))


@pytest.mark.parametrize("name", ["table2", "table5", "proxy_table2", "proxy_table5"])
def test_a_table_of_the_paper_has_all_its_rows(name: str):
    sweep = sweep_of(name)
    assert sweep.published is not None
    assert [point.label for point in points(sweep)] == list(published(sweep.published))


@pytest.mark.parametrize("name", ["table6_natural", "table6_portrait"])
def test_every_guidance_scale_stands_beside_the_papers(name: str):
    sweep = sweep_of(name)
    assert sweep.published is not None
    paper = published(sweep.published)
    assert all(paper_row(paper, label) for label in scorings(sweep)) and len(paper) == 7


def test_every_subset_of_the_losses_is_there_once():
    labels = [point.label for point in points(sweep_of("table5_all"))]
    subsets = {frozenset(label.split("+")) for label in labels}
    assert len(labels) == len(subsets) == 15
    for point in points(sweep_of("table5_all")):
        assert point.label == "+".join(point.overrides["distill.losses"])


def test_table_2_is_the_proxy_at_another_size():
    """The same experiments, so that what is seen in the small can be asked in the large."""
    assert points(sweep_of("table2")) == points(sweep_of("proxy_table2"))


def test_the_proxies_share_the_teacher(tmp_path: Path):
    from moebius.recipes import teacher_folder

    trials = [t for n in (2, 5) for t in plan_trials(sweep_of(f"proxy_table{n}"), tmp_path)]
    taught = [trial.recipe for trial in trials if trial.recipe.needs_teacher]
    assert len({teacher_folder(recipe, tmp_path) for recipe in taught}) == 1
    assert [trial.label for trial in trials][:2] == ["1 seed 0", "2 seed 0"]


def test_windows_and_stages_are_what_the_labels_say(tmp_path: Path):
    for trial in plan_trials(sweep_of("lambda_window"), tmp_path):
        assert isinstance(trial.recipe.arch, dict)
        windows = {stage["self"]["window"] for stage in trial.recipe.arch["stages"]}
        assert windows == {int(trial.label.removeprefix("r="))}
    for trial in plan_trials(sweep_of("mixed_stages"), tmp_path):
        assert isinstance(trial.recipe.arch, dict)
        stages = ["gla" if "self" in s else "lmi" for s in trial.recipe.arch["stages"]]
        assert "-".join(stages) == trial.label
