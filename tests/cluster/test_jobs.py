"""`ray job submit` against a fresh head: exit codes, logs, and where the run ends up."""

from pathlib import Path

import pytest

import moebius

pytestmark = pytest.mark.ray
pytest.importorskip("ray")


@pytest.fixture
def sweep(tiny_recipe, write_yaml) -> Path:
    """A sweep of one trial without a teacher."""
    tiny_recipe["validation"]["pictures"] = 1
    return write_yaml(
        "tiny.yaml",
        {
            "name": "tiny",
            "recipe": tiny_recipe,
            "experiments": [{"label": "alone", "overrides": {"distill.losses": ["task"]}}],
        },
    )


def test_a_submitted_sweep_trains_and_keeps_its_model(head, sweep: Path) -> None:
    """As the README gives it; without a storage, the run lies in the cluster's home."""
    done = head.submit("--working-dir", ".", "--", "python", "-m", "moebius.tune", sweep)
    logs = done.stdout + done.stderr
    assert done.returncode == 0, logs
    out = head.home / "moebius" / "runs" / "tiny"
    assert f"the run is kept in {out}" in logs
    assert f"best: alone; model, table and pictures in {out}" in logs
    assert "succeeded" in logs and "Traceback" not in logs
    pipeline = moebius.InpaintPipeline.from_pretrained(out / "model")
    assert pipeline.denoiser.architecture.name == "lmi_dw_mixffn"


def test_a_failing_job_says_why_in_one_line(head, sweep: Path, tmp_path: Path) -> None:
    """What is uploaded is small, too: no .git, no tests, no runs."""
    command = (
        "du -sm .; ls -A; exec python -m moebius.tune "
        f"{sweep} --out {tmp_path}/out resources.gpus=4"
    )
    done = head.submit("--working-dir", ".", "--", "sh", "-c", command)
    logs = done.stdout + done.stderr
    assert done.returncode == 1, logs
    lines = logs.splitlines()
    # Ray shows a failed job's last lines again.
    assert {line for line in lines if line.startswith("error:")} == {
        "error: a trial of sweep 'tiny' needs 4 GPU, the cluster has 0; lower its workers or "
        "resources.gpus"
    }
    assert "failed with exit code 2" in logs and "Traceback" not in logs
    (size,) = [line.split()[0] for line in lines if line.split()[1:] == ["."]]
    assert int(size) < 20, f"{size} MB are uploaded"
    assert not {".git", ".venv", "runs", "tests"} & set(lines)
    assert "moebius" in lines
