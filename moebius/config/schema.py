"""What every schema shares: strict sections, and reading with one clear error."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moebius.config.plain import dotted, strange_parts
from moebius.config.yaml_text import CHARACTERS, read_yaml

Probability = Annotated[float, Field(ge=0, le=1)]
Module = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
"""Name of an importable module."""


class Strict(BaseModel):
    """A frozen section that refuses unknown keys, infinity and NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )

    @property
    def changed(self) -> list[str]:
        """Keys whose values are not the schema's own."""
        fields = type(self).model_fields
        return [key for key in fields if getattr(self, key) != fields[key].default]


Model = TypeVar("Model", bound=Strict)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file's mapping; one clear ValueError for a missing or malformed file."""
    try:
        with open(path, encoding="utf-8") as file:
            data = read_yaml(file.read(CHARACTERS + 1))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a mapping of keys to values")
    return data


def parse(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """Validates `data`; all problems stand in one ValueError, each with its key."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{source}: a {type(data).__name__} is no mapping of keys to values")
    problems = list(strange_parts(data))
    if not problems:
        try:
            return model.model_validate(dict(data))
        except ValidationError as error:
            problems = [_problem(model, item) for item in error.errors()]
    raise ValueError(" ".join(f"{source}: {'; '.join(problems)}".split()))


def override(data: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Applies `dotted.key=value` assignments (values in YAML) to a copy of `data`."""
    result = dict(data)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ValueError(f"override {assignment!r} must read key.subkey=value")
        try:
            value = read_yaml(text)
        except ValueError:
            raise ValueError(f"override {assignment!r}: the value is not valid YAML") from None
        result = set_dotted(result, key, value)
    return result


def set_dotted(data: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of `data` with the nested `key` (`a.b.c`) set."""
    head, _, rest = key.partition(".")
    if not rest:
        return {**data, head: value}
    inner = data.get(head)
    return {**data, head: set_dotted(inner if isinstance(inner, Mapping) else {}, rest, value)}


def _problem(model: type[Strict], item: Any) -> str:
    where = dotted(item["loc"])
    if item["type"] != "extra_forbidden":
        message = item["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    known = _keys_at(model, item["loc"][:-1])
    close = get_close_matches(str(item["loc"][-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"


def _keys_at(model: type[Strict], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = None if field is None else _section(field.annotation)
        if inner is not None:
            model = inner
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _section(annotation: Any) -> type[Strict] | None:
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    inner = (_section(argument) for argument in getattr(annotation, "__args__", ()))
    return next((section for section in inner if section is not None), None)
