"""Methods side by side: a grid as in the paper's Fig. 5, and a page with a slider."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moebius.evaluation.evaluated import EvaluatedFolder
from moebius.evaluation.pages import data_uri, fill_page
from moebius.evaluation.plots import picture_grid


def write_comparison(
    folder: Path,
    out: Path,
    methods: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    count: int = 8,
    seed: int = 0,
) -> None:
    """Writes `compare.png` and `compare.html`: input with a grey hole, each method, truth.

    Args:
        folder: an evaluation's folder, see `EvaluatedFolder`.
        out: folder to write to.
        methods: which, in this order; all by default.
        ids: which pictures; by default `count` of those that every method has a result for,
            or all of them where they are fewer.
        count: how many pictures are drawn.
        seed: of the draw.

    Raises:
        ValueError: unknown methods or ids, no pictures, or a result of another size.
    """
    source = EvaluatedFolder(folder)
    methods = source.choose_methods(methods)
    ids = choose_ids(source, methods, ids, count, seed)
    titles = ["input", *methods, "truth"]
    cases = [source.pictures(methods, name) for name in ids]
    out.mkdir(parents=True, exist_ok=True)
    columns = zip(*cases, strict=True)
    picture_grid(list(zip(titles, columns, strict=True)), out / "compare.png")
    scores = {method: source.scores(method) for method in methods}
    data = {
        "name": source.path.resolve().name,
        "titles": titles,
        "cases": [
            _page_case(name, pictures, [{}, *(scores[m].get(name, {}) for m in methods), {}])
            for name, pictures in zip(ids, cases, strict=True)
        ],
    }
    (out / "compare.html").write_text(fill_page("compare", data), encoding="utf-8")


def choose_ids(
    source: EvaluatedFolder,
    methods: Sequence[str],
    ids: Sequence[str] | None,
    count: int,
    seed: int,
) -> list[str]:
    """The named ids, or a seeded draw from those that all methods have finished."""
    finished = source.finished(methods)
    if ids is not None:
        lacking = [name for name in ids if name not in finished]
        if lacking:
            raise ValueError(f"not every method has a result for {', '.join(lacking)}")
        return list(ids)
    if not finished or count < 1:
        raise ValueError(f"no picture to show: {len(finished)} have results of every method")
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(finished), min(count, len(finished)), replace=False)
    return [finished[n] for n in sorted(drawn)]


def _page_case(
    name: str, pictures: Sequence[np.ndarray], scores: Sequence[dict[str, float]]
) -> dict[str, Any]:
    height, width = pictures[0].shape[:2]
    texts = [{key: _digits(value) for key, value in row.items()} for row in scores]
    uris = [data_uri(picture) for picture in pictures]
    return {"id": name, "size": [width, height], "pictures": uris, "scores": texts}


def _digits(value: float) -> str:
    return f"{value:.{2 if abs(value) >= 10 else 3}f}"
