"""Recipes by name and by file, what they extend, and the plugins they bring."""

import sys
from pathlib import Path

import pytest
import yaml

from moebius.blocks import registry
from moebius.models.architectures import resolve
from moebius.recipes import merge, raw_recipe, read_recipe, recipe_names

BASE = {"seed": 1, "training": {"steps": 10, "global_batch": 4}, "distill": {"losses": ["task"]}}


def write(path: Path, data: dict) -> str:
    path.write_text(yaml.safe_dump(data))
    return str(path)


def test_the_packaged_recipes_are_there():
    assert recipe_names() == ["builtin", "paper"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_is_valid(name: str):
    recipe = read_recipe(name)
    resolve(recipe.arch, **recipe.model)
    # `paper` leaves open what its command line must name.
    assert (recipe.data.source == "") == (recipe.codec == "") == (name == "paper")
    if recipe.teacher is not None:
        resolve(recipe.teacher.arch)


def test_paper_is_the_papers_run():
    recipe = read_recipe("paper")
    assert recipe.training.steps == 138_000 and recipe.training.global_batch == 768
    assert recipe.optimizer.milestones == [111_000, 129_000] and recipe.optimizer.lr == 2e-4
    assert recipe.distill.balance == "paper" and len(recipe.distill.losses) == 4


def test_merge_goes_section_by_section_and_replaces_lists():
    base = {"a": {"x": 1, "y": {"z": [1, 2]}}, "b": 1, "c": {"d": 1}}
    changes = {"a": {"y": {"z": [3]}}, "b": {"new": 1}, "c": None}
    assert merge(base, changes) == {"a": {"x": 1, "y": {"z": [3]}}, "b": {"new": 1}, "c": None}
    assert base["a"] == {"x": 1, "y": {"z": [1, 2]}}


def test_a_file_extends_a_file_that_extends_a_name(tmp_path: Path):
    parent = write(tmp_path / "parent.yaml", {"extends": "builtin", "training": {"steps": 5}})
    child = write(tmp_path / "child.yaml", {"extends": parent, "training": {"global_batch": 8}})
    recipe, builtin = read_recipe(child, ["seed=3"]), read_recipe("builtin")
    assert (recipe.training.steps, recipe.training.global_batch, recipe.seed) == (5, 8, 3)
    assert recipe.optimizer == builtin.optimizer and recipe.teacher == builtin.teacher
    assert read_recipe({"extends": child, "seed": 3}) == recipe


def test_files_travel_by_their_whole_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "builtin").mkdir()
    overrides = ["data.source=photos", "teacher={path: photos}", "init_from=owner/name"]
    recipe = read_recipe("builtin", overrides)
    assert recipe.teacher is not None
    assert recipe.data.source == recipe.teacher.path == str(tmp_path / "photos")
    assert (recipe.codec, recipe.init_from) == ("builtin", "owner/name")


def test_overrides_come_as_texts_or_as_a_mapping():
    by_text = read_recipe(BASE, ["training.steps=20", "distill.losses=[task,perceptual]"])
    by_mapping = read_recipe(BASE, {"training.steps": 20, "distill.losses": ["task", "perceptual"]})
    assert by_text == by_mapping and by_text.training.steps == 20
    assert BASE["training"] == {"steps": 10, "global_batch": 4}


def test_unknown_names_and_typos_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"unknown recipe 'papers'; known: builtin, paper, or a"):
        read_recipe("papers")
    with pytest.raises(ValueError, match=r"cannot read nowhere.yaml"):
        read_recipe("nowhere.yaml")
    with pytest.raises(ValueError, match="unknown recipe 'gone'"):
        read_recipe({**BASE, "extends": "gone"})
    path = write(tmp_path / "typo.yaml", {**BASE, "distil": {}})
    with pytest.raises(ValueError, match=r"typo.yaml: unknown key 'distil'; did you mean 'dist"):
        read_recipe(path)


def test_a_circle_of_bases_is_refused(tmp_path: Path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    write(one, {"extends": str(two)})
    write(two, {"extends": str(one)})
    with pytest.raises(ValueError, match=r"one.yaml extends itself"):
        raw_recipe(str(one))


def test_plugins_register_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tables = {slot: dict(table) for slot, table in registry._OPERATORS.items()}
    monkeypatch.setattr(registry, "_OPERATORS", tables)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_test_blocks.py").write_text(
        "from moebius.blocks import register\n"
        "from torch import nn\n"
        "@register('ffn', 'my_test_ffn')\n"
        "class Mine(nn.Module): pass\n"
    )
    read_recipe({**BASE, "plugins": ["my_test_blocks"]})
    assert "my_test_blocks" in sys.modules and "my_test_ffn" in registry.names("ffn")
    with pytest.raises(ValueError, match=r"plugin 'gone_blocks' cannot be imported .*PYTHONPATH"):
        read_recipe({**BASE, "plugins": ["gone_blocks"]})
