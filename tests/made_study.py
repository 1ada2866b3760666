"""A study's key and its participants' answers, made up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moebius.evaluation.study.files import ANSWERS_FORMAT, Case, Key

METHODS = ["red", "green", "blue"]


def make_key(scenarios: tuple[str, ...] = ("natural",), cases: int = 4, methods=METHODS) -> Key:
    """`cases` cases a scenario; option `<case>-<n>` is method n."""
    made = {
        f"{scenario}{n}": Case(
            scenario=scenario,
            id=f"picture{n}",
            options={f"{scenario}{n}-{m}": method for m, method in enumerate(methods)},
        )
        for scenario in scenarios
        for n in range(cases)
    }
    return Key(
        study="s1", seed=0, quality=95, scenarios=list(scenarios), methods=methods, cases=made
    )


def make_answers(
    key: Key, participant: str, choose: Callable[[int, str], int], day: int = 1
) -> dict[str, Any]:
    """What the page saves; `choose` gives the method's number for a case's number and name."""
    answers = [
        {
            "case": case,
            "shown": list(reversed(key.cases[case].options)),
            "choice": f"{case}-{choose(n, case)}",
            "ms": 3000,
        }
        for n, case in enumerate(key.cases)
    ]
    return {
        "format": ANSWERS_FORMAT,
        "study": key.study,
        "participant": participant,
        "seed": 1,
        "started": f"2026-01-{day:02}T10:00:00.000Z",
        "finished": f"2026-01-{day:02}T11:00:00.000Z",
        "answers": answers,
    }


def save(folder: Path, name: str, data: Any) -> Path:
    """Writes JSON, or a text as it is."""
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path
