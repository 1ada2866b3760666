"""What may go, and what never does."""

from pathlib import Path

from made_runs import make_evaluation, make_run, make_sweep

from moebius.distill.occupation import occupied
from moebius.operations.cleaning import plan_cleaning, remove


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def planned(root: Path) -> set[str]:
    return {str(item.path.relative_to(root)) for item in plan_cleaning(root).items}


OLD = {f"a/trials/1/checkpoints/step_00000{n}" for n in (2, 4)}


def test_old_checkpoints_ray_folders_and_caches_go_and_nothing_else(tmp_path: Path):
    make_sweep(tmp_path / "a")
    make_evaluation(tmp_path / "e" / "telea")
    before = files(tmp_path)
    plan = plan_cleaning(tmp_path)
    assert planned(tmp_path) == OLD | {"a/ray", "a/latents/abc.safetensors"}
    assert files(tmp_path) == before, "a plan removes nothing"
    sizes = sum((tmp_path / name).stat().st_size for name in before)
    assert list(remove(plan.items)) == plan.items
    left = files(tmp_path)
    gone = {n for n in before if any(n.startswith(p) for p in [*OLD, "a/ray", "a/latents/"])}
    assert before - left == gone and gone
    freed = sum(item.disk for item in plan.items)
    assert freed == sizes - sum((tmp_path / name).stat().st_size for name in left)
    assert planned(tmp_path) == set()


def test_the_newest_whole_checkpoint_stays_whatever_is_newer(tmp_path: Path):
    checkpoints = make_run(tmp_path / "b", result=False) / "checkpoints"
    (checkpoints / "step_000006" / "weights").write_bytes(b"w" * 99)
    assert planned(tmp_path / "b") == {"checkpoints/step_000006", "checkpoints/step_000002"}
    for step in (2, 4):
        (checkpoints / f"step_00000{step}" / "weights").unlink()
    assert planned(tmp_path / "b") == set(), "where none is whole, none goes"


def test_what_a_killed_process_left_goes(tmp_path: Path):
    run = make_run(tmp_path / "b", done=2)
    (run / "checkpoints" / ".step_000004.partial").mkdir()
    with occupied(run):
        pass
    for name in (".config.yaml.123", ".keep"):
        (run / name).write_text("{}")
    (tmp_path / "latents").mkdir()
    for name in (f"abc.{'0f' * 16}.tmp", "notes.txt"):
        (tmp_path / "latents" / name).write_text("x")
    assert planned(tmp_path) == {
        "b/.config.yaml.123",
        "b/checkpoints/.step_000004.partial",
        f"latents/abc.{'0f' * 16}.tmp",
    }


def test_nothing_of_what_runs_goes_nor_what_it_shares(tmp_path: Path):
    make_sweep(tmp_path / "a")
    make_run(tmp_path / "b")
    (tmp_path / "latents").mkdir()
    (tmp_path / "latents" / "c.safetensors").write_bytes(b"l")
    others = {f"b/checkpoints/step_00000{n}" for n in (2, 4)}
    with occupied(tmp_path / "a" / "trials" / "2"):
        plan = plan_cleaning(tmp_path)
        assert planned(tmp_path) == others, "the sweep runs with its trial"
        assert {record.path.name for record in plan.kept} == {"a", "2"}
    with occupied(tmp_path / "a"):
        assert planned(tmp_path) == others
    assert planned(tmp_path) > OLD | others | {"latents/c.safetensors"}


def test_a_run_that_begins_after_the_plan_is_left_alone(tmp_path: Path):
    make_sweep(tmp_path / "a")
    plan = plan_cleaning(tmp_path)
    with occupied(tmp_path / "a"):
        assert list(remove(plan.items)) == []
    with occupied(tmp_path / "a" / "trials" / "2"):
        assert {str(i.path.relative_to(tmp_path)) for i in remove(plan.items)} == OLD


def test_broken_folders_and_links_are_left_alone(tmp_path: Path):
    run = make_run(tmp_path / "b")
    (run / "config.yaml").write_text("[")
    assert planned(tmp_path) == set()
    assert [record.state for record in plan_cleaning(tmp_path).kept] == ["broken"]
    outside = tmp_path / "outside"
    outside.mkdir()
    other = make_run(tmp_path / "c", done=2)
    (other / "ray").symlink_to(outside)
    assert planned(tmp_path) == set()
