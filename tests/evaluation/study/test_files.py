"""Which answers count, and what is said of the others."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_study import make_answers, make_key, save

from moebius.evaluation.study.files import Key, read, read_answers

KEY = make_key()


def answers(**changes: Any) -> dict[str, Any]:
    return make_answers(KEY, "p1", lambda n, case: 0) | changes


def changed_case(**changes: Any) -> dict[str, Any]:
    data = answers()
    data["answers"][2] |= changes
    return data


def test_good_answers_count_in_the_order_of_their_ends(tmp_path: Path):
    paths = [
        save(tmp_path, f"{day}.json", make_answers(KEY, f"p{day}", lambda n, case: 1, day))
        for day in (3, 1, 2)
    ]
    found, refused = read_answers(paths, KEY)
    assert [a.participant for a in found] == ["p1", "p2", "p3"]
    assert refused == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\ufeff\x00", "is not JSON"),
        ("[]", "is not a JSON object"),
        ({"study": "s1"}, "participant: Field required"),
        (answers(study="s2"), "answers study s2, this is study s1"),
        (answers(format="something"), "format:"),
        (answers(participant=""), "participant:"),
        (answers(started="yesterday"), "started:"),
        (answers(finished=None), "finished:"),
        (answers(extra=1), "unknown key 'extra'"),
        (answers(answers=answers()["answers"][:3]), "answers 3 of 4 cases"),
        (answers(answers=answers()["answers"][:3] * 2), "answers a case more than once"),
        (changed_case(case="elsewhere"), "answers 3 of 4 cases"),
        (changed_case(choice="natural1-0"), "case natural2 has other options"),
        (changed_case(choice=None), "answers.2.choice"),
        (changed_case(shown=["natural2-0"] * 3), "case natural2 has other options"),
        (changed_case(shown=["natural2-0", "natural2-1"]), "case natural2 has other options"),
        (changed_case(ms=-1), "answers.2.ms"),
        (json.dumps(changed_case(ms=float("nan"))), "answers.2.ms"),
    ],
)
def test_bad_answers_are_refused_with_one_line(tmp_path: Path, data: Any, message: str):
    good = save(tmp_path, "good.json", make_answers(KEY, "p2", lambda n, case: 0))
    found, [line] = read_answers([save(tmp_path, "bad.json", data), good], KEY)
    assert [a.participant for a in found] == ["p2"]
    assert "bad.json" in line and message in line and "\n" not in line


def test_files_that_cannot_be_read_are_refused(tmp_path: Path):
    found, refused = read_answers([tmp_path / "missing.json", tmp_path], KEY)
    assert found == []
    assert "missing.json: No such file" in refused[0] and "Is a directory" in refused[1]


def test_of_a_participants_answers_the_earlier_count(tmp_path: Path):
    late = save(tmp_path, "a.json", make_answers(KEY, "p1", lambda n, case: 0, day=2))
    early = save(tmp_path, "b.json", make_answers(KEY, "p1", lambda n, case: 1, day=1))
    [found], [line] = read_answers([late, early], KEY)
    assert found.finished.day == 1
    assert str(late) in line and str(early) in line and "'p1'" in line
    assert "again" not in line


def test_the_same_file_twice_counts_once(tmp_path: Path):
    path = save(tmp_path, "a.json", answers())
    found, refused = read_answers([path, path], KEY)
    assert len(found) == 1 and len(refused) == 1


def test_a_key_is_read_as_it_was_written(tmp_path: Path):
    assert read(Key, save(tmp_path, "key.json", KEY.model_dump_json())) == KEY
    with pytest.raises(ValueError, match=r"key.json.*methods"):
        read(Key, save(tmp_path, "key.json", {**json.loads(KEY.model_dump_json()), "methods": []}))
