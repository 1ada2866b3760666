"""`ray job submit` to a fresh head: exit codes, logs, storage, where the run ends up."""

import subprocess
from pathlib import Path

import pytest

import moebius
from moebius.data.copies import bring, open_place
from moebius.data.urls import join
from moebius.distill.run_folder import RunFolder

# Generous: other programs may share the two cores.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
pytest.importorskip("ray")


@pytest.fixture
def sweep(tiny_recipe, write_yaml) -> Path:
    """A sweep of one trial without a teacher."""
    return write_yaml(
        "tiny.yaml",
        {"name": "tiny", "recipe": tiny_recipe, "grid": {"distill.losses": [["task"]]}},
    )


def test_a_submitted_sweep_trains_and_keeps_its_model(cluster, sweep: Path) -> None:
    """As the README gives it: nothing but Ray runs there before, and no storage is named."""
    code, logs = cluster.submit("python", "-m", "moebius.tune", sweep)
    assert code == 0, logs
    out = cluster.home / "moebius" / "runs" / "tiny"
    assert f"the run is kept in {out}" in logs
    assert f"best: losses=task; model, table and pictures in {out}" in logs
    assert "succeeded" in logs and "Traceback" not in logs
    assert moebius.InpaintPipeline.from_pretrained(out / "model")


def test_a_failing_job_says_why_in_one_line(cluster, tmp_path: Path) -> None:
    """What is uploaded is small, too: no .git, no tests, no runs."""
    missing = tmp_path / "nowhere.yaml"
    command = f"du -sm .; ls -A; exec python -m moebius.tune {missing}"
    code, logs = cluster.submit("sh", "-c", command)
    assert code == 1, logs
    lines = logs.splitlines()
    # Ray shows a failed job's last lines again.
    (error,) = {line for line in lines if line.startswith("error:")}
    assert str(missing) in error
    assert "failed with exit code 2" in logs and "Traceback" not in logs
    (size,) = [line.split()[0] for line in lines if line.split()[1:] == ["."]]
    assert int(size) < 20, f"{size} MB are uploaded"
    assert "moebius" in lines
    assert not {".git", ".venv", "runs", "tests"} & set(lines)


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["folder", "bucket"])
def test_a_sweep_and_a_distillation_of_two_workers_spread_over_three_nodes(
    cluster, tiny_recipe, write_yaml, tmp_path: Path, request, monkeypatch, kept: str
) -> None:
    """Nodes of one CPU: three trials at once take all, a teacher and a promotion two each."""
    place = str(tmp_path / "out")
    if kept == "bucket":
        monkeypatch.setenv("MOEBIUS_COPIES", str(tmp_path / "copies"))
        place = request.getfixturevalue("bucket").format("spread")
    while len(cluster.nodes) < 3:
        cluster.add_node()
    sweep = {
        "name": "spread",
        "recipe": tiny_recipe,
        "grid": {"arch": ["lmi_dw_mixffn"]},
        "seeds": [0, 1, 2],
        "promote": {"overrides": {"training.steps": 8}},
        "cluster_workers": 2,
    }
    code, logs = cluster.submit(
        "python", "-m", "moebius.tune", write_yaml("spread.yaml", sweep), "--out", place
    )
    assert code == 0, logs
    out = bring(open_place(place, "driver"))
    assert len(list(out.glob("trials/*/result.json"))) == 3
    assert RunFolder(out / "promoted").read_metrics()[-1]["loss/coarse"] > 0
    assert moebius.InpaintPipeline.from_pretrained(join(place, "model"))


def test_storage_that_a_node_does_not_see_is_found_before_the_run(
    cluster, sweep: Path, tmp_path: Path
) -> None:
    """The node's own, empty file system lies over the folder, as where a mount was forgotten."""
    out = tmp_path / "storage" / "out"
    out.parent.mkdir()
    namespace = ["unshare", "--map-root-user", "--mount", "--uts", "sh", "-ec"]
    if subprocess.run([*namespace, "mount -t tmpfs none /mnt"], check=False).returncode:
        pytest.skip("this machine lets nobody unshare a mount namespace")
    blind = f'hostname blind; mount -t tmpfs none {out.parent}; exec "$@"'
    cluster.add_node([*namespace, blind, "sh"])
    code, logs = cluster.submit("python", "-m", "moebius.tune", sweep, "--out", out)
    assert code == 1, logs
    assert {line for line in logs.splitlines() if line.startswith("error:")} == {
        f"error: {out} is not shared by all nodes: blind does not see what the driver wrote there. "
        "Mount one storage on every node and name it in --out or MOEBIUS_STORAGE"
    }
    assert list(out.iterdir()) == [], "something was left or started"
