"""Differences of configurations."""

from moebius.operations.comparing import Difference, differences


def test_only_what_differs_is_named_by_its_dotted_key():
    first = {"arch": "a", "training": {"steps": 6, "log_every": 2}, "teacher": None, "x": [1]}
    second = {"arch": "b", "training": {"steps": 9, "log_every": 2}, "teacher": {"path": "t"}}
    assert differences(first, second) == [
        Difference("arch", "a", "b"),
        Difference("training.steps", 6, 9),
        Difference("teacher", None, {"path": "t"}),
        Difference("x", [1], None),
    ]
    assert differences(first, first) == []
