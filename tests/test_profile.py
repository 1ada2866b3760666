"""The profile door: rows, formats, differences, YAML architectures, one-line errors."""

import csv
import io
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro

from moebius import profile
from moebius.models.architectures import NAMES
from moebius.models.complexity import Complexity, measure_complexity
from moebius.profile import Options, difference_rows, main, profile_row, render

KEYS = ["arch", "experiments", "params", "params_with_lcg", "gmacs_paper", "gmacs"]


@pytest.fixture(scope="module")
def student() -> Complexity:
    return measure_complexity("lmi_dw_mixffn")


@pytest.fixture(scope="module")
def baseline() -> Complexity:
    return measure_complexity("gla_ca_conv_ffn")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("architectures") / "tiny.yaml"
    path.write_text(
        "stages: [{width: 32, depth: 1}, {width: 32, depth: 1}]\n"
        "latent_size: 8\nlcg_dim: 8\ncontext_dim: 8\n"
    )
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(tyro.cli(Options, args=arguments))
    return capsys.readouterr().out


def test_json_rows_have_exactly_the_named_keys(capsys):
    rows = json.loads(printed(capsys, "--arch", "lmi_dw_mixffn", "pixelhacker", "--format", "json"))
    assert [list(row) for row in rows] == [KEYS, KEYS]
    student, teacher = rows
    assert student["arch"] == "lmi_dw_mixffn" and student["experiments"] == "10 / 9"
    assert student["params"] < student["params_with_lcg"]
    assert student["gmacs_paper"] < student["gmacs"]
    assert teacher["arch"] == "pixelhacker" and teacher["experiments"] == ""
    assert all(isinstance(row["params"], int) for row in rows)


def test_a_missing_experiment_is_a_dash():
    assert profile_row(Complexity("lmi_dw_ffn", 1, 2, {}))["experiments"] == "- / 8"


def test_all_means_every_name(capsys, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def count(name: str, latent_size: int | None) -> Complexity:
        asked.append((name, latent_size))
        return Complexity(name, 1, 2, {})

    monkeypatch.setattr("moebius.profile.measure_complexity", count)
    text = printed(capsys, "--arch", "all", "--latent-size", "32", "--format", "csv")
    assert asked == [(name, 32) for name in NAMES]
    assert [row["arch"] for row in csv.DictReader(io.StringIO(text))] == list(NAMES)


def test_the_formats_hold_the_same_figures(student: Complexity):
    row = profile_row(student)
    assert json.loads(render([row], "json")) == [row]
    (read,) = csv.DictReader(io.StringIO(render([row], "csv")))
    assert read == {key: str(value) for key, value in row.items()}
    shown = ["lmi_dw_mixffn", "10 / 9", f"{student.params:,}", f"{student.gmacs:.2f}"]
    header, rule, line = render([row], "markdown").splitlines()
    cells = [[cell.strip() for cell in text.strip("|").split("|")] for text in (header, rule, line)]
    assert cells[0] == ["Arch.", "Exp.", "Params", "with LCG", "GMACs (paper)", "GMACs (complete)"]
    assert cells[1] == ["---", "---", "---:", "---:", "---:", "---:"]
    assert all(text in cells[2] for text in shown)
    table = render([row], "table")
    assert all(text in table for text in (*cells[0], *shown))
    assert "…" not in table and len({len(line) for line in table.splitlines()}) == 1


def test_differences_add_up_block_by_block(student: Complexity, baseline: Complexity):
    rows = difference_rows(student, baseline)
    assert sum(row["params_change"] for row in rows) == student.params - baseline.params
    change = sum(row["gmacs_change"] for row in rows)
    assert change == pytest.approx(student.gmacs - baseline.gmacs, abs=0.001 * len(rows))
    mixer = next(row for row in rows if row["block"] == "down.0.attentions.0")
    assert mixer["kind"] == "local_lambda + interactive_lambda + mix_ffn"
    assert mixer["against"] == "gla + cross_attention + ffn"
    other = baseline.blocks["down.0.attentions.0"].params
    assert mixer["params"] - other == mixer["params_change"] != 0


def test_blocks_that_one_side_lacks_are_shown(student: Complexity):
    teacher = measure_complexity("pixelhacker")
    rows = {row["block"]: row for row in difference_rows(student, teacher)}
    absent = rows["mid.resnets.0"]
    assert absent["kind"] == "-" and absent["params"] == 0
    assert absent["params_change"] == -teacher.blocks["mid.resnets.0"].params


def test_against_is_one_document_for_several_architectures(tiny: Path, capsys):
    other = tiny.with_name("other.yaml")
    other.write_text(tiny.read_text().replace("width: 32", "width: 64, ffn: ffn"))
    arguments = ("--arch", str(tiny), str(other), "--against", str(tiny), "--format", "json")
    rows = json.loads(printed(capsys, *arguments))
    changed = {row["arch"] for row in rows if row["params_change"]}
    assert {row["arch"] for row in rows} == {"tiny", "other"} and changed == {"other"}


def test_a_yaml_architecture_of_mixed_stages(tmp_path: Path, capsys):
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "base: lmi_dw_mixffn\n"
        "stages: [{width: 64, mixing: false}, {width: 128, self: gla}, {width: 128, depth: 1}]\n"
    )
    (row,) = json.loads(printed(capsys, "--arch", str(path), "--format", "json"))
    assert row["experiments"] == "" and row["params"] == measure_complexity(path).params
    assert "mixed" in row["arch"]


def test_latency_is_measured(tiny: Path, capsys):
    (row,) = json.loads(printed(capsys, "--arch", str(tiny), "--latency", "--format", "json"))
    assert list(row) == [*KEYS, "ms_per_step", "peak_gib"]
    assert row["ms_per_step"] > 0 and row["peak_gib"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="a peak that can be reset")
def test_a_peak_is_the_architectures_own(tiny: Path, capsys):
    np.ones(2**26)  # half a GiB, gone again
    (row,) = json.loads(printed(capsys, "--arch", str(tiny), "--latency", "--format", "json"))
    own = int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    assert row["peak_gib"] < own / 2**20 + 0.25


def test_a_latent_of_no_size_is_refused(tiny: Path):
    with pytest.raises(ValueError, match="--latent-size is 3: use at least 4"):
        main(Options(arch=(str(tiny),), latent_size=3))


def test_an_unknown_architecture_is_one_line_and_code_2(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["profile", "--arch", "lmi_dw_mixfn"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(Path(profile.__file__)), run_name="__main__")
    assert caught.value.code == 2
    out, error = capsys.readouterr()
    assert out == "" and re.fullmatch(
        r"error: unknown architecture 'lmi_dw_mixfn'; did you mean 'lmi_dw_mixffn'\?.*\n", error
    )
