"""`kill -9` of a sweep's driver under a head that lives on: the next one goes on at once."""

import random
import time
from pathlib import Path

import pytest
from killing import KILLED, QUICKSTART, SHRUNKEN, logged, outcome

from moebius.distill.occupation import occupation
from moebius.distill.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3600)]
pytest.importorskip("ray")

# The head has one CPU: two trials at once, and two workers for the teacher and the promotion.
OVERRIDES = (*SHRUNKEN, "resources.cpus=0.5")
DRIVER = ("-m", "moebius.tune", QUICKSTART, *OVERRIDES, "--out")


def stage(out: Path) -> str:
    """What a sweep is at, by what it has left."""
    teachers, trials = out.glob("teacher-*"), out.glob("trials/*")
    if not any(RunFolder(folder).read_result(4) for folder in teachers):
        return "teacher"
    if sum(RunFolder(folder).read_result(6) is not None for folder in trials) < 4:
        return "trials"
    return "promotion" if RunFolder(out / "promoted").read_result(10) is None else "report"


def test_a_driver_that_is_killed_at_twenty_random_moments_leaves_the_same_table(
    cluster, tmp_path: Path
) -> None:
    """A random while after a random line of the runs' logs; six times while it promotes."""
    undisturbed, out, rng = tmp_path / "undisturbed", tmp_path / "killed", random.Random(0)
    assert cluster.start_driver(*DRIVER, undisturbed).wait() == 0
    assert logged(undisturbed) == 16
    lines = [rng.randint(0, 13) for _ in range(14)] + [rng.randint(14, 15) for _ in range(6)]
    kills = []
    for line in sorted(lines):
        # In a step of that line, or where it was there before, in the start of processes, too.
        moment = rng.uniform(0, 15 if logged(out) >= line else 1)
        driver, started = cluster.start_driver(*DRIVER, out), time.monotonic()
        while driver.poll() is None and (logged(out) < line or occupation(out) == "free"):
            time.sleep(0.02)
        time.sleep(moment)
        driver.kill()
        kills.append((driver.wait(), f"{time.monotonic() - started:.1f} s", stage(out)))
        print(*kills[-1], flush=True)
    assert cluster.start_driver(*DRIVER, out).wait() == 0
    assert sum(code == KILLED for code, *_ in kills) >= 15, "the sweep was too fast for the kills"
    assert {what for _, _, what in kills} >= {"teacher", "trials", "promotion"}
    assert outcome(out) == outcome(undisturbed)
