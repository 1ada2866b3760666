"""A run whose nodes are lost and come back: other workers, the same samples, the same end."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moebius.assembly import train_run
from moebius.distill.run_folder import RunFolder
from moebius.recipes import read_recipe

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]
pytest.importorskip("ray")

# Writes down who took which step, and holds two workers at step 4 and one at step 6: however fast
# the machine, they go on only because Ray starts others in their place.
PLUGIN = """
import time
from pathlib import Path

from moebius.distill.trainer import Trainer

folder, take_step = Path(__file__).parent, Trainer.take_step


def taken(self, batches):
    done = take_step(self, batches)
    (folder / f"step{self.step}-worker{self.world.rank}-of{self.world.size}").touch()
    while (self.step, self.world.size) in ((4, 2), (6, 1)):
        time.sleep(0.1)
    return done


Trainer.take_step = taken
"""


def wait(until: Callable[[], bool], what: str, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.2)


def test_a_run_goes_on_with_the_workers_that_are_left_and_grows_again(
    cluster, tiny_recipe, write_yaml, tmp_path: Path
) -> None:
    """A batch of 4 does not divide among the three workers that there are: one is spare."""
    tiny_recipe["distill"] = {"losses": ["task"]}
    tiny_recipe["training"] |= {"steps": 8, "micro_batch": 2, "log_every": 1}
    alone = train_run(read_recipe(tiny_recipe), tmp_path / "alone", tmp_path)

    notes = cluster.modules
    (notes / "held_steps.py").write_text(PLUGIN)
    lost = [cluster.add_node() for _ in range(2)]
    recipe = write_yaml("elastic.yaml", tiny_recipe | {"plugins": ["held_steps"]})
    out = tmp_path / "out"
    started = time.monotonic()
    options = ["--out", out, "--workers", "1:4", "--cpus-per-worker", "1"]
    job = cluster.start_job("python", "-m", "moebius.train", "--recipe", recipe, *options)
    times = {}

    def seen(step: int, size: int) -> Callable[[], bool]:
        def there() -> bool:
            assert job.poll() is None, job.communicate()[0]
            return (notes / f"step{step}-worker0-of{size}").exists()

        return there

    try:
        wait(seen(4, 2), "step 4 of two workers")
        times["two workers at step 4"] = time.monotonic() - started
        for node in lost:
            cluster.kill_node(node)
        lost_at = time.monotonic()
        wait(seen(6, 1), "step 6 of one worker")
        times["lost, one worker at step 6 after"] = time.monotonic() - lost_at
        for _ in range(2):
            cluster.add_node()
        back_at = time.monotonic()
        wait(seen(5, 2), "step 5 of two workers")
        times["back, two workers at step 5 after"] = time.monotonic() - back_at
        logs, _ = job.communicate(timeout=600)
    finally:
        job.kill()
    assert job.returncode == 0, logs
    print(os.linesep.join(f"{what}: {seconds:.0f} s" for what, seconds in times.items()))

    run = RunFolder(out)
    assert [line["step"] for line in run.read_metrics()] == list(range(1, 9))
    assert (out / "checkpoints" / "step_000008" / "state.json").read_text() == (
        '{"step": 8, "samples": 32}'
    )
    result = run.read_result(8)
    assert result is not None
    assert result["loss/task"] == pytest.approx(alone["loss/task"], rel=1e-3)
