"""The pool of actors: what a cluster must have for it."""

import pytest
import torch

from moebius.pool import fit_pool, pick_device


def test_a_pool_that_does_not_fit_is_refused_before_it_waits():
    fit_pool(3, 0, {"CPU": 4.0})
    fit_pool(2, 1, {"CPU": 4.0, "GPU": 2.0})
    with pytest.raises(ValueError, match=r"4 workers need 5 CPUs.*use at most --workers 3"):
        fit_pool(4, 0, {"CPU": 4.0})
    with pytest.raises(ValueError, match="work in this process"):
        fit_pool(1, 0, {"CPU": 1.0})
    with pytest.raises(ValueError, match="a GPU each, the cluster has 1"):
        fit_pool(2, 1, {"CPU": 4.0, "GPU": 1.0})


def test_actors_with_loaders_take_more_cores():
    fit_pool(2, 0, {"CPU": 7.0}, cpus=3)
    with pytest.raises(ValueError, match=r"2 workers need 7 CPUs.*use at most --workers 1"):
        fit_pool(2, 0, {"CPU": 6.0}, cpus=3)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto", on_ray=False) == "cpu"
    with pytest.raises(ValueError, match="device cuda is not available"):
        pick_device("cuda", on_ray=False)
