"""One self-contained page that asks which picture is best, and the key to it."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moebius.evaluation.evaluated import EvaluatedFolder
from moebius.evaluation.pages import data_uri, fill_page
from moebius.evaluation.study.files import ANSWERS_FORMAT, Case, Key

MOST_OPTIONS = 9
"""As many as there are keys 1 to 9."""


@dataclass(frozen=True)
class Scenario:
    """An evaluation's folder under the name that the report gives it."""

    name: str
    folder: EvaluatedFolder


def key_path(page: Path) -> Path:
    """Where the key to a page lies: `study.key.json` beside `study.html`."""
    return page.with_suffix(".key.json")


def build_study(
    scenarios: Sequence[Scenario],
    page: Path,
    methods: Sequence[str] | None = None,
    count: int = 50,
    quality: int = 95,
    seed: int | None = None,
) -> Key:
    """Writes the page and, beside it, the key that `report` reads and no participant may see.

    The page names neither methods nor files: what it calls them are digests keyed by the seed.
    Same folders and seed, same bytes.

    Args:
        scenarios: where the cases come from.
        page: HTML file to write.
        methods: which compete; by default those of the first folder.
        count: cases of each scenario, drawn from those that every method has a result for.
        quality: of the embedded WebP pictures; 100 is lossless.
        seed: of the draw and the digests; a secret one by default, kept in the key.

    Raises:
        ValueError: names given twice, less than two methods, too few cases, or the key of
            another study in the way.
    """
    seed = secrets.randbits(48) if seed is None else seed
    names = [scenario.name for scenario in scenarios]
    if len(set(names)) < len(names):
        raise ValueError(f"scenarios are called {', '.join(names)}: give each its own name")
    methods = scenarios[0].folder.choose_methods(methods)
    if not 2 <= len(methods) <= MOST_OPTIONS:
        raise ValueError(f"{len(methods)} methods: a choice needs 2 to {MOST_OPTIONS}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}: give 1 to 100")
    hidden: dict[str, Case] = {}
    shown: list[dict[str, Any]] = []
    for number, scenario in enumerate(scenarios):
        scenario.folder.choose_methods(methods)
        for name in _draw(scenario, methods, count, np.random.default_rng([seed, number])):
            case, on_page = _make_case(scenario, methods, name, quality, seed)
            hidden[on_page["case"]] = case
            shown.append(on_page)
    # Sorted by digest, neither cases nor options stand in an order that tells anything.
    shown.sort(key=lambda case: case["case"])
    study = hashlib.sha256(json.dumps([seed, shown]).encode()).hexdigest()[:12]
    key = Key(
        study=study,
        seed=seed,
        quality=quality,
        scenarios=names,
        methods=list(methods),
        cases=dict(sorted(hidden.items())),
    )
    text = key.model_dump_json(indent=1)
    place = key_path(page)
    if place.exists() and place.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{place} is the key of another study, whose answers need it: "
            "choose another -o, or move it away"
        )
    page.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")
    data = {"format": ANSWERS_FORMAT, "study": study, "cases": shown}
    page.write_text(fill_page("study", data), encoding="utf-8")
    return key


def _draw(
    scenario: Scenario, methods: Sequence[str], count: int, rng: np.random.Generator
) -> list[str]:
    finished = scenario.folder.finished(methods)
    if not 1 <= count <= len(finished):
        raise ValueError(
            f"scenario {scenario.name}: {len(finished)} pictures have results of every method, "
            f"{count} cases are asked for (--cases)"
        )
    return [finished[n] for n in rng.choice(len(finished), count, replace=False)]


def _make_case(
    scenario: Scenario, methods: Sequence[str], name: str, quality: int, seed: int
) -> tuple[Case, dict[str, Any]]:
    """What the key says of a case, and what the page shows of it."""
    pictures = scenario.folder.pictures(methods, name)
    height, width = pictures[0].shape[:2]
    opaque = [_digest(seed, scenario.name, name, method) for method in methods]
    case = Case(scenario=scenario.name, id=name, options=dict(zip(opaque, methods, strict=True)))
    options = [
        {"option": option, "picture": data_uri(picture, quality)}
        for option, picture in zip(opaque, pictures[1:-1], strict=True)
    ]
    return case, {
        "case": _digest(seed, scenario.name, name),
        "size": [width, height],
        "input": data_uri(pictures[0], quality),
        "options": sorted(options, key=lambda option: option["option"]),
    }


def _digest(seed: int, *names: str) -> str:
    return hashlib.sha256(json.dumps([seed, *names]).encode()).hexdigest()[:12]
