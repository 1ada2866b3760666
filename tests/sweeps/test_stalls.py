"""A trial that makes no progress ends its own process, and says why."""

from pathlib import Path

from killing import hang, run_apart

from moebius.distill.occupation import ERROR
from moebius.distill.run_folder import RunFolder
from moebius.sweeps.stalls import ends_when_stalled


def test_a_trial_that_hangs_is_ended_and_leaves_why_and_where(tmp_path: Path) -> None:
    assert run_apart(hang, tmp_path / "trial", 0.5) == -9
    left = (tmp_path / "trial" / ERROR).read_text().splitlines()
    assert left[-1] == "no progress in 0.5 s (stall_s); last step logged: step 2"
    assert any("in hang" in line for line in left), "the stack shows where"


def test_a_trial_that_ends_is_not_watched_any_more(tmp_path: Path) -> None:
    with ends_when_stalled(tmp_path, 300.0):
        RunFolder(tmp_path).log({"step": 2})
    with ends_when_stalled(tmp_path, None):
        pass
    assert not (tmp_path / ERROR).exists()
