"""Gauges: names, labels and values, whatever publishes them."""

from typing import Any

from moebius.operations.gauges import gauged


class Gauge:
    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.tag_keys, self.values = name, tag_keys, list[Any]()
        assert description

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.values.append((value, *tags.values()))


def test_metrics_become_gauges_labelled_by_the_run_and_are_reported_as_before():
    made: list[Gauge] = []
    told: list[Any] = []

    def make(*arguments: Any, **options: Any) -> Gauge:
        made.append(Gauge(*arguments, **options))
        return made[-1]

    report = gauged(told.append, make, "quickstart/trials/9")
    metrics = {"step": 4, "samples_per_second": 8.5, "loss/task": 0.5, "loss/total": 0.7, "norm": 3}
    report(metrics)
    report({"step": 6, "psnr_hole": 12.5})
    run = "quickstart/trials/9"
    assert {gauge.name: gauge.values for gauge in made} == {
        "moebius_step": [(4, run), (6, run)],
        "moebius_samples_per_second": [(8.5, run)],
        "moebius_psnr_hole": [(12.5, run)],
        "moebius_ssim_hole": [],
        "moebius_loss": [(0.5, run, "task"), (0.7, run, "total")],
    }
    assert told == [metrics, {"step": 6, "psnr_hole": 12.5}]
