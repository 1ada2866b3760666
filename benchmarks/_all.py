"""Runs every benchmark, each in a process of its own, and gathers their claims in one table.

    python benchmarks/_all.py [SCRIPT ...]

`results.json` beside it holds the figures with date and hardware. It is committed: the README
quotes it. A missed target is shown and changes nothing; a script that fails makes the exit 1.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from _ratio import RECORDS, Claim

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"


def cpu_model() -> str:
    """The processor's name, as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    family, model = fields.get("cpu family", "?"), fields.get("model", "?")
    return f"{fields.get('model name', 'unknown')} (family {family}, model {model})"


def hardware() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
    }


def run_script(script: Path, records: Path) -> tuple[int, list[Claim]]:
    """Its exit code, and the claims that it showed before."""
    records.write_text("")
    environment = os.environ | {RECORDS: str(records)}
    done = subprocess.run([sys.executable, str(script)], env=environment)
    claims = [Claim(**json.loads(line)) for line in records.read_text().splitlines()]
    return done.returncode, claims


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| what | plain | fast | ratio | target | reached |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        verdict = {None: "", True: "yes", False: "NO"}[row["reached"]]
        figures = " | ".join(f"{row[key]:.4g} {row['unit']}" for key in ("plain", "fast"))
        lines.append(
            f"| {row['name']} | {figures} | {row['ratio']:.2f} | {row['target']} | {verdict} |"
        )
    return "\n".join(lines)


def main(names: list[str]) -> int:
    """Runs the named scripts, or all."""
    found = sorted(path for path in HERE.glob("[a-z]*.py") if not names or path.stem in names)
    if unknown := set(names) - {path.stem for path in found}:
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))} in {HERE}")
    begin, failed = time.monotonic(), []
    results: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds")}
    results |= hardware() | {"seconds": {}, "claims": []}
    with tempfile.TemporaryDirectory() as folder:
        for script in found:
            print(f"== {script.stem}", flush=True)
            start = time.monotonic()
            code, claims = run_script(script, Path(folder) / "records.jsonl")
            results["seconds"][script.stem] = round(time.monotonic() - start, 1)
            failed += [script.stem] if code else []
            for claim in claims:
                row = {"script": script.stem, **vars(claim)}
                results["claims"].append(row | {"target": claim.target, "reached": claim.reached})
    print(f"\n{results['cpu']}, {results['cores']} cores, GPU {results['gpu']}")
    print(table(results["claims"]))
    print(f"{time.monotonic() - begin:.0f} s in all")
    if failed:
        print(f"failed: {', '.join(failed)}; results.json stays as it was", file=sys.stderr)
        return 1
    if names:
        print("not all were run: results.json stays as it was")
        return 0
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
