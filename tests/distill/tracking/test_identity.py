"""What trackers are told of a run."""

from pathlib import Path

import pytest

from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking.identity import (
    public_config,
    read_id,
    run_name,
    without_secrets,
    write_id,
)
from moebius.recipes import read_recipe


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("s3://key:word@bucket/photos", "s3://***@bucket/photos"),
        ("https://h/f?X-Amz-Signature=abc", "https://h/f?***"),
        ("https://key@h/f?a=b", "https://***@h/f?***"),
        ("photos/me@home?.jpg", "photos/me@home?.jpg"),
        ({"api_key": "abc", "tokens": None}, {"api_key": "***", "tokens": None}),
        ({"hf_TOKEN": {"a": 1}}, {"hf_TOKEN": "***"}),
        ({"a": [{"password": 7}, "s3://k:w@b"]}, {"a": [{"password": "***"}, "s3://***@b"]}),
        (1.5, 1.5),
    ],
)
def test_secrets_are_hidden(value, shown):
    assert without_secrets(value) == shown


def test_nothing_else_of_a_recipe_is_hidden(tiny_recipe):
    recipe = read_recipe(tiny_recipe)
    assert public_config(recipe) == recipe.model_dump(mode="json", by_alias=True)


def test_names_say_which_run_it_is():
    assert run_name(Path("/data/runs/quickstart/trials/9")) == "quickstart/trials/9"
    assert run_name(Path("/data/runs/builtin-lmi")) == "runs/builtin-lmi"


def test_ids_stay_with_the_folder(tmp_path: Path):
    folder = RunFolder(tmp_path)
    assert read_id(folder, "wandb") is None
    write_id(folder, "wandb", "abc")
    write_id(folder, "mlflow", "def")
    assert (read_id(folder, "wandb"), read_id(folder, "mlflow")) == ("abc", "def")
