"""Workers and storage of a cluster: what is understood, and what is refused before it starts."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from moebius import cluster
from moebius.cluster import Workers, answer, parse_workers, reach
from moebius.recipes import read_recipe


@pytest.mark.parametrize(("text", "ends"), [("1", (1, 1)), ("16", (16, 16)), ("8:16", (8, 16))])
def test_workers_are_a_number_or_a_range(text: str, ends: tuple[int, int]) -> None:
    assert parse_workers(text) == ends


@pytest.mark.parametrize("text", ["", "0", "0:2", "2:1", "-1", "1:", "one", "1:2:3"])
def test_other_workers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^workers are a number or least:most, such as 8 or 8:16"):
        parse_workers(text)


def test_a_run_that_is_not_elastic_needs_all_its_workers() -> None:
    assert Workers(3).fewest == 3
    assert Workers(3, least=2).fewest == 2


def test_a_node_that_sees_the_storage_answers_in_it(tmp_path: Path) -> None:
    probe = tmp_path / ".seen-0"
    probe.write_text(probe.name)
    assert answer(probe, "node1") is None
    assert (tmp_path / ".seen-0.node1").read_text() == "node1"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_node_without_the_storage_says_what_is_wrong(tmp_path: Path, monkeypatch) -> None:
    probe = tmp_path / "elsewhere" / ".seen-0"
    assert answer(probe, "node1") == "does not see what the driver wrote there"
    probe.parent.mkdir()
    probe.write_text("another probe")
    assert answer(probe, "node1") == "reads something else there"
    probe.write_text(probe.name)

    def no_rename(*paths: Path) -> None:  # as mounts of object storage do
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "replace", no_rename)
    problem = "cannot replace and append to files there (Operation not supported)"
    assert answer(probe, "node1") == problem


def test_a_node_that_reaches_the_bucket_says_nothing(bucket: str) -> None:
    place = bucket.format("run")
    assert reach(place, "node1") is None
    problem = reach(place.replace("photos", "no-such-bucket"), "node1")
    assert problem is not None and "\n" not in problem


@pytest.mark.parametrize(
    ("answers", "refused"),
    [([], True), (["no data"], True), (["no data", None], False), ([None], False)],
)
def test_inputs_may_lie_on_any_node(answers, refused: bool, monkeypatch) -> None:
    """A head without the data's disk still leads workers that have it."""
    ray = pytest.importorskip("ray")
    nodes = [{"NodeID": n, "Alive": True} for n in range(len(answers) + 1)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: 0))
    monkeypatch.setattr(cluster, "_ask", lambda node, question, about: answers[node["NodeID"] - 1])
    monkeypatch.setattr(cluster, "_answered", lambda reference: reference)
    recipe = read_recipe("builtin", {"data.source": "/nowhere"})
    if refused:
        with pytest.raises(ValueError, match=r"^data\.source: no data at '/nowhere'"):
            cluster.check_inputs([recipe])
    else:
        cluster.check_inputs([recipe])
    assert cluster.miss([recipe], "node1") is not None
    assert cluster.miss([read_recipe("builtin")], "node1") is None
