"""Folders of runs, sweeps and evaluations, made without any training."""

import json
from pathlib import Path
from typing import Any

import yaml

from moebius.distill.checkpoints import write_checkpoint

CONFIG: dict[str, Any] = {
    "arch": "lmi_dw_mixffn",
    "training": {"steps": 6},
    "optimizer": {"lr": 1e-3},
}


def make_run(
    folder: Path, steps: int = 6, done: int = 6, result: bool = True, **config: Any
) -> Path:
    """A run with a line of metrics and a checkpoint every 2 steps, its score rising to step 4."""
    folder.mkdir(parents=True)
    settings = {**CONFIG, "training": {"steps": steps}, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    lines = []
    for step in range(2, done + 1, 2):
        scores = {"psnr_hole": 12.0 - abs(step - 4), "loss/task": 1 / step}
        lines.append({"step": step, **scores})
        write_checkpoint(
            folder / "checkpoints", step, {"weights": lambda path: path.write_bytes(b"w" * 100)}, 9
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_bytes(b"m" * 50)
        (folder / "result.json").write_text(json.dumps(lines[-1]))
    return folder


def make_sweep(folder: Path) -> Path:
    """A sweep of two trials, one of them failed, with everything that may be cleaned."""
    make_run(folder / "trials" / "1")
    failed = make_run(folder / "trials" / "2", done=2, result=False)
    (failed / "error.txt").write_text("Traceback\n  ...\nValueError: no teacher [at] all\n")
    for name in ("ray/tune-1", "latents", "model"):
        (folder / name).mkdir(parents=True)
    (folder / "ray" / "tune-1" / "state").write_bytes(b"r" * 300)
    (folder / "latents" / "abc.safetensors").write_bytes(b"l" * 400)
    (folder / "model" / "weights").write_bytes(b"m" * 50)
    (folder / "results.json").write_text("[]")
    return folder


def make_evaluation(folder: Path, finished: bool = True) -> Path:
    """A method's folder with a score."""
    for name in ("results", "shards"):
        (folder / name).mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"method": {"name": "telea"}, "batch": 1}))
    if finished:
        scores = {"psnr": 21.5, "fid": 30.0}
        (folder / "result.json").write_text(json.dumps({"metrics": scores}))
    return folder
