"""The schema: nearest names for typos at every depth, one ValueError for whatever is wrong."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moebius.config import (
    Architecture,
    Distill,
    Experiment,
    Recipe,
    Stage,
    Strict,
    Sweep,
    load_yaml,
    override,
    parse,
    set_dotted,
)

RECIPE: dict[str, Any] = {"training": {"steps": 10, "global_batch": 4}}
STAGE = {"width": 32}
SWEEP: dict[str, Any] = {"name": "s", "recipe": "builtin", "grid": {"arch": ["a", "b"]}}


def refused(model: type[Strict], data: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as caught:
        parse(model, data, "file.yaml")
    text = str(caught.value)
    assert text.startswith("file.yaml: ") and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("model", "data", "typo", "meant"),
    [
        (Recipe, {**RECIPE, "sead": 1}, "sead", "seed"),
        (Recipe, {"training": {**RECIPE["training"], "stepz": 1}}, "training.stepz", "steps"),
        (Recipe, {**RECIPE, "data": {"sizes": 64}}, "data.sizes", "size"),
        (Recipe, {**RECIPE, "teacher": {"pth": "x", "path": "y"}}, "teacher.pth", "path"),
        (Sweep, {**SWEEP, "promote": {"warmstart": True}}, "promote.warmstart", "warm_start"),
        (
            Sweep,
            {"name": "s", "recipe": "r", "experiments": [{"label": "1"}, {"lable": "2"}]},
            "experiments.1.lable",
            "label",
        ),
        (Architecture, {"stages": [STAGE, {**STAGE, "selv": "gla"}]}, "stages.1.selv", "self"),
        (Architecture, {"stages": [STAGE], "middle": {"widht": 32}}, "middle.widht", "width"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(model, data, typo: str, meant: str):
    assert f"unknown key {typo!r}; did you mean {meant!r}?" in refused(model, data)


def test_an_unknown_key_without_a_near_one_is_told_what_exists():
    text = refused(Sweep, {**SWEEP, "objective": {"qqq": 1}})
    assert "unknown key 'objective.qqq'; known: metric, mode" in text


def test_all_problems_stand_in_one_line():
    text = refused(Recipe, {"training": {"steps": 0, "global_batch": 4}, "sead": 1, "codec": 2})
    assert "training.steps" in text and "sead" in text and "codec" in text


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (Recipe, {**RECIPE, "teacher": {}}, "teacher: a teacher needs either path or train"),
        (Recipe, {**RECIPE, "data": {"size": 100}}, "data: size must be a multiple of 32"),
        (
            Recipe,
            {"training": {"steps": 1, "global_batch": 6, "micro_batch": 4}},
            "training.global_batch 6 is not a multiple of training.micro_batch 4",
        ),
        (
            Recipe,
            {**RECIPE, "distill": {"balance": "static", "static_weights": {"task": 1.0}}},
            "distill.static_weights lacks coarse, fine, perceptual",
        ),
        (Recipe, {**RECIPE, "distill": {"losses": []}}, "distill.losses"),
        (Recipe, {**RECIPE, "distill": {"losses": ["tasks"]}}, "distill.losses.0"),
        (Recipe, {**RECIPE, "distill": {"losses": ["task", "task"]}}, "losses: name each once"),
        (Recipe, {**RECIPE, "optimizer": {"lr": float("inf")}}, "optimizer.lr"),
        (Recipe, {**RECIPE, "optimizer": {"ema": float("nan")}}, "optimizer.ema"),
        (Recipe, {**RECIPE, "plugins": [".mine"]}, "plugins.0"),
        (Sweep, {"name": "s", "recipe": "r"}, "a sweep needs either experiments or a grid"),
        (Sweep, {**SWEEP, "experiments": [{"label": "1"}]}, "either experiments or a grid"),
        (Sweep, {**SWEEP, "grid": {"arch": []}}, "grid.arch"),
        (
            Sweep,
            {"name": "s", "recipe": "r", "experiments": [{"label": "1"}] * 2},
            "experiment labels must differ; twice: 1",
        ),
        (Architecture, {"stages": []}, "stages"),
        (Architecture, {"stages": [{"width": 48}]}, "width 48 is not a multiple of norm_groups 32"),
        (Architecture, {"stages": [STAGE], "heads": 5}, "width 32 is not a multiple of heads 5"),
    ],
)
def test_what_does_not_fit_together_is_said(model, data, said: str):
    text = refused(model, data)
    assert said in text and "Value error" not in text


def test_defaults_are_whole_and_not_shared():
    recipe = parse(Recipe, RECIPE, "recipe")
    assert recipe.needs_teacher and recipe.distill.losses == [
        "coarse",
        "fine",
        "task",
        "perceptual",
    ]
    assert Distill().losses is not Distill().losses
    assert not parse(Recipe, {**RECIPE, "distill": {"losses": ["task"]}}, "recipe").needs_teacher
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_a_model_survives_its_own_dump():
    full = {**RECIPE, "teacher": {"path": "x"}, "data": {"short_side": [512, 600]}}
    for model, data in ((Recipe, full), (Sweep, SWEEP), (Architecture, {"stages": [STAGE]})):
        parsed = parse(model, data, "first")
        assert parse(model, parsed.model_dump(mode="json", by_alias=True), "again") == parsed
    assert set(Stage(width=32).model_dump(by_alias=True)) >= {"self", "cross", "ffn", "conv"}


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "a: 2020-13-45",
        "{[1]: 2}",
        "a: !!int x",
        "a: !!python/name:os.system",
        "\x00",
        "[" * 500,
    ],
)
def test_bad_yaml_is_one_line_that_names_the_file(tmp_path: Path, text: str):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad.yaml is not valid YAML") as caught:
        load_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("steps: 1\nlr: 2\nsteps: 3\n", "steps", "1 and 3"),
        ('training:\n  steps: 1\n  "steps": 1\n', "steps", "2 and 3"),
        ("- {1: a, 1: b}", "1", "1 and 1"),
        ("<<: {a: 1}\n<<: {b: 2}\n", "<<", "1 and 2"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_lines(
    tmp_path: Path, text: str, key: str, lines: str
):
    path = tmp_path / "twice.yaml"
    path.write_text(text)
    reason = f"twice.yaml is not valid YAML: the key '{key}' stands twice, in lines {lines}$"
    with pytest.raises(ValueError, match=reason):
        load_yaml(path)
    long = "k" * 90_000
    path.write_text(f"? {long}\n: 1\n? {long}\n: 2\n")
    with pytest.raises(ValueError, match="the key 'kkk") as caught:
        load_yaml(path)
    assert len(str(caught.value)) < 300


def test_a_merge_may_be_written_over_and_sections_have_keys_of_their_own(tmp_path: Path):
    path = tmp_path / "merged.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*a, *b], y: 4}\n")
    data = load_yaml(path)
    assert data["b"] == {"x": 3, "y": 2} and data["c"] == {"x": 1, "y": 4}


def test_what_is_no_mapping_is_refused(tmp_path: Path):
    path = tmp_path / "x.yaml"
    for content in (b"- 1\n- 2\n", b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"must hold a mapping"):
            load_yaml(path)
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_yaml(path)
    with pytest.raises(ValueError, match=r"cannot read .*missing.yaml: No such file"):
        load_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ValueError, match=r"cannot read .*directory"):
        load_yaml(tmp_path)


def test_overrides_are_dotted_keys_with_yaml_values():
    base = {"distill": {"losses": ["task"], "balance": "paper"}, "seed": 0}
    changed = override(
        base,
        ["distill.losses=[coarse, fine]", "seed=7", "data.source=a=b", "teacher=", "x.y.z=1.5"],
    )
    assert changed == {
        "distill": {"losses": ["coarse", "fine"], "balance": "paper"},
        "seed": 7,
        "data": {"source": "a=b"},
        "teacher": None,
        "x": {"y": {"z": 1.5}},
    }
    assert base == {"distill": {"losses": ["task"], "balance": "paper"}, "seed": 0}
    assert override({"day": 0}, ["day=2020-02-03"]) == {"day": date(2020, 2, 3)}
    assert set_dotted({"arch": "name"}, "arch.base", "other") == {"arch": {"base": "other"}}


def test_exponents_without_a_point_are_numbers():
    # YAML 1.1 reads 2e-4 as text; the schema must not.
    recipe = parse(Recipe, override(RECIPE, ["optimizer.lr=2e-4"]), "recipe")
    assert recipe.optimizer.lr == 2e-4


@pytest.mark.parametrize("text", ["steps", "=3", "", "a=[1", "a=2020-13-45"])
def test_malformed_overrides_are_named(text: str):
    with pytest.raises(ValueError, match="override"):
        override({}, [text])


# Keys of the schema and strange ones, down to the depth of the deepest section.
NAMES = sorted(
    {
        name
        for model in (Recipe, Sweep, Architecture, Stage, Distill, Experiment)
        for name in (
            *model.model_fields,
            *(f.alias for f in model.model_fields.values() if f.alias),
        )
    }
    | {"steps", "global_batch", "path", "train", "size", "source"}
)
KEYS = st.sampled_from(NAMES) | st.text(max_size=4) | st.integers() | st.none()
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.binary(max_size=3)
    | st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(("model", "valid"), [(Recipe, RECIPE), (Sweep, SWEEP), (Architecture, {})])
@settings(max_examples=100, deadline=None)
@given(data=st.dictionaries(KEYS, VALUES, max_size=5), whole=st.booleans())
def test_any_mapping_gives_a_model_or_one_error(model, valid, data, whole: bool):
    data = {**valid, **data} if whole else data
    try:
        assert isinstance(parse(model, data, "file"), model)
    except ValueError as error:
        assert str(error).startswith("file: ")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_override_gives_a_mapping_or_one_error(text: str):
    try:
        assert isinstance(override(RECIPE, [text]), dict)
    except ValueError as error:
        assert str(error).startswith("override ")
