"""A run's metrics as Prometheus gauges, through whatever publishes them (Ray, in the doors)."""

from collections.abc import Callable, Mapping
from typing import Any

Report = Callable[[Mapping[str, float]], Any]
PLAIN = ("step", "samples_per_second", "psnr_hole", "ssim_hole")
"""Metrics with a gauge of their own, `moebius_<name>`; losses share one, by their name."""
LOSS = "loss/"


def gauged(report: Report, gauge: Callable[..., Any], run: str) -> Report:
    """`report` that also sets gauges, labelled by the run.

    Args:
        report: what is told a log interval's metrics.
        gauge: `ray.util.metrics.Gauge` or its like; Ray puts `ray_` before the names.
        run: the label.
    """
    gauges = {
        name: gauge(f"moebius_{name}", description=f"{name} of a run", tag_keys=("run",))
        for name in PLAIN
    }
    losses = gauge("moebius_loss", description="losses of a run", tag_keys=("run", "loss"))

    def told(metrics: Mapping[str, float]) -> Any:
        for name, value in metrics.items():
            if name in gauges:
                gauges[name].set(value, tags={"run": run})
            elif name.startswith(LOSS):
                losses.set(value, tags={"run": run, "loss": name.removeprefix(LOSS)})
        return report(metrics)

    return told
