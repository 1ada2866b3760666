"""Experiment trackers that are told a run's metrics beside its `metrics.jsonl`."""

from moebius.distill.tracking.tracker import Track, check_trackers, tracked

__all__ = ["Track", "check_trackers", "tracked"]
