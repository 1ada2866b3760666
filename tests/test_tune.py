"""The sweep door on a local Ray cluster: a whole sweep, and one that is killed and goes on."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from killing import KILLED, outcome, run_apart
from killing import sweep as in_process
from PIL import Image

import moebius
from moebius.distill.occupation import MARK

pytestmark = pytest.mark.ray
pytest.importorskip("ray")

EXPERIMENTS = [
    {"label": "1", "overrides": {"arch": "gla_ca_conv_ffn", "distill.losses": ["task"]}},
    {"label": "broken", "overrides": {"init_from": __file__}},
    {"label": "9", "overrides": {"arch": "lmi_dw_mixffn"}},
]


def start(*command: str | Path) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS",)}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def kill_once(there: Path, *command: str | Path) -> None:
    """Starts a sweep and kills it, with the Ray that it has started, once a file is there."""
    process = start("moebius.tune", *command)
    deadline = time.monotonic() + 400
    while not there.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == KILLED and there.exists(), errors


def test_a_sweep_reports_failures_promotes_and_goes_on_when_killed(
    tiny_recipe, write_yaml, tmp_path: Path
) -> None:
    """While it promotes; the end is that of one that no Ray and no kill touched."""
    sweep = {
        "name": "tiny",
        "recipe": tiny_recipe,
        "experiments": EXPERIMENTS,
        "promote": {"overrides": {"training.steps": 8}},
        "max_concurrent": 1,
    }
    path, out = write_yaml("tiny.yaml", sweep), tmp_path / "out"
    finished = out / "trials" / "1" / "result.json"
    kill_once(out / "promoted" / MARK, path, "--out", out)
    stamp = finished.stat().st_mtime_ns
    assert not (out / "model").exists()

    last = start("moebius.tune", path, "--out", out)
    table, errors = last.communicate(timeout=500)
    assert last.returncode == 0, errors
    assert finished.stat().st_mtime_ns == stamp, "a finished trial was repeated"
    assert "Traceback" not in errors
    assert "9 promoted" in table or "1 promoted" in table
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["experiment"] for row in rows[:3]] == ["1", "broken", "9"]
    assert rows[1]["error"].endswith("give a .safetensors file, or a .bin of tensors")
    assert all(float(rows[n]["psnr_hole"]) > 0 for n in (0, 2, 3))
    assert "failed: " in (out / "results.md").read_text()
    for picture in ("results.png", "pictures.png"):
        assert Image.open(out / picture).width > 200
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert best["arch"] in ("gla_ca_conv_ffn", "lmi_dw_mixffn")
    steps = [line for line in (out / "promoted" / "metrics.jsonl").read_text().splitlines()]
    assert '"step": 8' in steps[-1] and len(steps) == 1, (
        "the winner's checkpoint was not gone on from"
    )
    pipeline = moebius.InpaintPipeline.from_pretrained(out / "model")
    assert pipeline.denoiser.architecture.name == best["arch"]
    assert run_apart(in_process, path, (), tmp_path / "undisturbed") == 0
    assert outcome(out) == outcome(tmp_path / "undisturbed")


def test_multi_worker_trials_nest_a_trainer(tiny_recipe, write_yaml, tmp_path: Path) -> None:
    """Two trials of two workers each on two cores: they must take turns, and must not wait."""
    sweep = {
        "name": "gang",
        "recipe": tiny_recipe,
        "grid": {"distill.losses": [["task"]], "arch": ["lmi_dw_mixffn", "ll_ca_dw_mixffn"]},
        "workers": 2,
    }
    path, out = write_yaml("gang.yaml", sweep), tmp_path / "out"
    run = start("moebius.tune", path, "--out", out)
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert len(rows) == 2 and not any(row["error"] for row in rows)


HANGS = """
import time
from moebius.distill.trainer import Trainer

plain = Trainer.take_step

def take_step(self, batches):
    if self.recipe.seed == 7 and self.step == 3:
        time.sleep(3600)
    return plain(self, batches)

Trainer.take_step = take_step
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_trial_that_hangs_is_given_up_with_its_reason_and_the_others_go_on(
    tiny_recipe, write_yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    search = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))
    sweep = {
        "name": "stalls",
        "recipe": {**tiny_recipe, "distill": {"losses": ["task"]}, "plugins": ["hangs"]},
        "grid": {"seed": [7, 8, 9]},
        "max_concurrent": 1,
        "max_failures": 1,
        "stall_s": 100,
    }
    path, out = write_yaml("stalls.yaml", sweep), tmp_path / "out"
    run = start("moebius.tune", path, "--out", out)
    _, errors = run.communicate(timeout=1100)
    assert run.returncode == 0, errors
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["error"] for row in rows] == [
        "no progress in 100 s (stall_s); last step logged: step 2",
        "",
        "",
    ]
    assert all(float(row["psnr_hole"]) > 0 for row in rows[1:])
    assert "take_step" in (out / "trials" / "seed_7" / "error.txt").read_text()


def test_a_search_that_is_killed_goes_on_where_it_stood(
    tiny_recipe, write_yaml, tmp_path: Path
) -> None:
    """Optuna proposes, ASHA stops: noise of 3 makes a loss about ten times that of 0.1."""
    pytest.importorskip("optuna")
    tiny_recipe["distill"] = {"losses": ["task"]}
    noise = {"training.noise_offset": {"choice": [0.1, 3.0]}, "seed": {"int": [0, 1000]}}
    sweep = {
        "name": "search",
        "recipe": tiny_recipe,
        "search": {"trials": 4, "startup": 4, "space": noise, "seed": 0},  # 0.1, 3.0, 3.0, 0.1
        "scheduler": {"name": "asha", "grace": 2, "reduction": 4, "metric": "loss/task"},
        "score": {"protocol": "builtin", "limit": 2, "steps": 2, "metrics": ["psnr"]},
        "max_concurrent": 1,
    }
    path, out = write_yaml("search.yaml", sweep), tmp_path / "out"
    finished = out / "trials" / "0" / "result.json"
    kill_once(finished, path, "--out", out)
    stamp = finished.stat().st_mtime_ns

    second = start("moebius.tune", path, "--out", out)
    table, errors = second.communicate(timeout=500)
    assert second.returncode == 0, errors
    assert finished.stat().st_mtime_ns == stamp, "a finished trial was repeated"
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["experiment"].partition(":")[0] for row in rows] == ["0", "1", "2", "3"]
    stopped = [row for row in rows if row.get("stopped")]
    assert [row["experiment"][0] for row in stopped] == ["1", "2"]
    assert all("noise_offset=3.0" in row["experiment"] for row in stopped)
    assert not any(row["error"] for row in rows) and "stopped at step" in table
    for row in rows:
        assert bool(row["psnr"]) == (row not in stopped), (
            "finished trials, and only they, are scored"
        )
