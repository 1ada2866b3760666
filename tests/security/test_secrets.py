"""Tokens and passwords stand in no file of a run, and in nothing that it says."""

import json
import logging
from pathlib import Path

import pytest

from moebius.config.secrets import hide_secrets, without_secrets
from moebius.console import _Discreet, guard
from moebius.distill.run_folder import RunFolder, write_text
from moebius.evaluation.benchmark import check_settings
from moebius.recipes import read_recipe
from moebius.sweeps.running import _keep_traceback

TOKENS = {
    "HF_TOKEN": "hf_aaaaaaaaaaaaaaaa",
    "WANDB_API_KEY": "0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SESSION_TOKEN": "session-of-mine",
}
ADDRESS = "https://me:opensesame@photos.example/set"
SECRETS = (*TOKENS.values(), "opensesame")


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)


def assert_discreet(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        for secret in SECRETS:
            assert secret not in path.read_text(), path


def test_a_run_folder_keeps_none_and_is_resumed(tmp_path: Path):
    recipe = read_recipe("builtin", [f"data.source={ADDRESS}", f"codec={TOKENS['HF_TOKEN']}"])
    assert recipe.data.source == ADDRESS  # what is read from is as it was given
    folder = RunFolder(tmp_path / "run")
    folder.prepare(recipe)
    assert "https://HIDDEN@photos.example/set" in (folder.path / "config.yaml").read_text()
    folder.write_result({"step": 1, "made_up": [], "why": f"{ADDRESS} {TOKENS['WANDB_API_KEY']}"})
    assert_discreet(tmp_path)
    folder.prepare(recipe)
    changed = ["data.source=https://me:new@photos.example/set", "codec=HIDDEN"]
    folder.prepare(read_recipe("builtin", changed))
    with pytest.raises(ValueError, match=r"other settings \(data.source"):
        folder.prepare(read_recipe("builtin", ["data.source=elsewhere", "codec=HIDDEN"]))


def test_a_failed_trial_keeps_none(tmp_path: Path):
    try:
        raise RuntimeError(f"401 for {ADDRESS} with {TOKENS['HF_TOKEN']}")
    except RuntimeError:
        _keep_traceback(tmp_path)
    assert_discreet(tmp_path)
    assert (
        "401 for https://HIDDEN@photos.example/set with HIDDEN"
        in (tmp_path / "error.txt").read_text()
    )


def test_an_evaluation_keeps_none_and_goes_on(tmp_path: Path):
    settings = {"source": ADDRESS, "masks": None}
    write_text(tmp_path / "settings.json", json.dumps(settings))
    assert_discreet(tmp_path)
    check_settings(tmp_path / "settings.json", settings)


def test_doors_and_logs_say_none(capsys: pytest.CaptureFixture[str]):
    def main() -> None:
        raise ValueError(f"no data at {ADDRESS} by {TOKENS['AWS_SESSION_TOKEN']}")

    with pytest.raises(SystemExit):
        guard(main)
    assert (
        capsys.readouterr().err == "error: no data at https://HIDDEN@photos.example/set by HIDDEN\n"
    )
    record = logging.makeLogRecord({"msg": "got %s", "args": (TOKENS["HF_TOKEN"],)})
    assert _Discreet("%(message)s").format(record) == "got HIDDEN"


@pytest.mark.parametrize(
    "text", ["plain", "a@b.c", "https://photos.example/me@home", "s3://bucket/key", "photos/a.png"]
)
def test_what_is_no_secret_stays(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_TOKEN_FILE", "photos/a.png")
    monkeypatch.setenv("SHORT_TOKEN", "plain")
    assert hide_secrets(text) == text
    assert without_secrets({"a": [text, 1, None]}) == {"a": [text, 1, None]}
