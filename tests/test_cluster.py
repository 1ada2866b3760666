"""Workers and storage of a cluster: what is understood, and what is refused before it starts."""

import os
from pathlib import Path

import pytest

from moebius.cluster import Workers, answer, parse_workers


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
