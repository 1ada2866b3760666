"""The files of a study: the key that `build` keeps, and what participants save."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, Field

from moebius.config import Strict, load_json, parse

ANSWERS_FORMAT = "moebius study answers 1"

Text = Annotated[str, Field(min_length=1)]


class Case(Strict):
    """What a case of the page is in truth."""

    scenario: Text
    id: Text
    """Of the picture in its evaluation's folder."""
    options: dict[str, Text]
    """Method by the page's name of its picture."""


class Key(Strict):
    """What the page hides."""

    format: Literal["moebius study key 1"] = "moebius study key 1"
    study: Text
    seed: int
    quality: int
    """Of the embedded pictures, 100 = lossless."""
    scenarios: list[Text] = Field(min_length=1)
    methods: list[Text] = Field(min_length=2)
    cases: dict[str, Case] = Field(min_length=1)
    """By the page's name of each."""


class Answer(Strict):
    """One forced choice."""

    case: str
    shown: list[str]
    """The options from 1 on, as this participant saw them."""
    choice: str
    ms: Annotated[float, Field(ge=0)]
    """Time that the case was looked at, milliseconds."""


class Answers(Strict):
    """What one participant saved; cases in the order in which they were shown."""

    format: Literal["moebius study answers 1"]
    study: Text
    participant: Text
    seed: int
    """Of the orders; it follows from study and participant."""
    started: AwareDatetime
    finished: AwareDatetime
    answers: list[Answer]


Model = TypeVar("Model", bound=Strict)


def read(model: type[Model], path: Path) -> Model:
    """Reads and checks a file.

    Raises:
        ValueError: a file that cannot be read, is no JSON, or holds something else; one line.
    """
    return parse(model, load_json(path), str(path))


def read_answers(paths: list[Path], key: Key) -> tuple[list[Answers], list[str]]:
    """The answers that count, earliest first, and one line for each file that does not."""
    found, refused = [], []
    for path in paths:
        try:
            answers = read(Answers, path)
            _check(answers, key, path)
            found.append((answers, path))
        except ValueError as error:
            refused.append(" ".join(str(error).split()))
    counted: dict[str, tuple[Answers, Path]] = {}
    for answers, path in sorted(found, key=lambda pair: pair[0].finished):
        if answers.participant in counted:
            first = counted[answers.participant][1]
            refused.append(
                f"{path}: participant {answers.participant!r} has answered in {first} already, "
                "and the earlier counts"
            )
        else:
            counted[answers.participant] = answers, path
    return [answers for answers, _ in counted.values()], refused


def _check(answers: Answers, key: Key, path: Path) -> None:
    if answers.study != key.study:
        raise ValueError(f"{path}: answers study {answers.study}, this is study {key.study}")
    seen = [answer.case for answer in answers.answers]
    if len(set(seen)) < len(seen):
        raise ValueError(f"{path}: answers a case more than once")
    if set(seen) != set(key.cases):
        known = len(set(seen) & set(key.cases))
        raise ValueError(f"{path}: answers {known} of {len(key.cases)} cases, all are needed")
    for answer in answers.answers:
        options = key.cases[answer.case].options
        if sorted(answer.shown) != sorted(options) or answer.choice not in options:
            raise ValueError(f"{path}: case {answer.case} has other options in this study")
