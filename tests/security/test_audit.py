"""`make lint` fails for what an upgrade mends, and for nothing else."""

import json
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"


def package(name: str, *fixes: list[str], **more: Any) -> dict[str, Any]:
    vulns = [{"id": f"CVE-{n}", "fix_versions": versions} for n, versions in enumerate(fixes)]
    return {"name": name, "version": "1.0", "vulns": vulns, **more}


SKIPPED = {"name": "lost", "skip_reason": "lost is not on PyPI"}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ([package("good")], 0, "dependencies: 1 audited, 0 vulnerabilities"),
        ([package("bad", ["1.1"])], 1, "bad 1.0: CVE-0, fixed in 1.1"),
        ([package("open", [])], 0, "open 1.0: CVE-0, fixed in nowhere yet"),
        ([package("both", [], ["1.1", "2.0"])], 1, "CVE-1, fixed in 1.1, 2.0"),
        ([package("good"), SKIPPED], 0, "not audited, not as such on PyPI: lost"),
        ([SKIPPED], 0, "dependencies are not audited: lost is not on PyPI"),
        ("no network", 0, "dependencies are not audited: cannot reach PyPI"),
        (None, 0, "dependencies are not audited: no answer from PyPI within"),
    ],
)
def test_what_fails_and_what_is_said(answer: Any, code: int, said: str, monkeypatch, capsys):
    def run(command: list[str], **options: Any) -> Any:
        if answer is None:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        text = json.dumps({"dependencies": answer}) if isinstance(answer, list) else ""
        return subprocess.CompletedProcess(command, 1, text, "trace\ncannot reach PyPI\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert runpy.run_path(str(SCRIPT))["main"]() == code
    assert said in capsys.readouterr().out
