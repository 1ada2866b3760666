"""Whatever listens does so on this machine only, unless it is told otherwise."""

import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moebius.deploy.website import make_server
from moebius.serving.deployment import Service

LOCAL = "127.0.0.1"


def test_the_dashboard(monkeypatch: pytest.MonkeyPatch):
    ray = pytest.importorskip("ray")
    from moebius.train import start_ray

    told: dict[str, Any] = {}
    default = inspect.signature(ray.init).parameters["dashboard_host"].default
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **given: told.update(given))
    start_ray()
    assert told["address"] == "local"
    assert told.get("dashboard_host", default) == LOCAL


def test_the_page_and_the_api(monkeypatch: pytest.MonkeyPatch):
    from moebius import app

    asked: list[str] = []

    class Stop(Exception):
        pass

    def check(host: str, port: int) -> None:
        asked.append(host)
        raise Stop

    monkeypatch.setattr(app, "check_address", check)
    monkeypatch.setattr(app, "find_model", lambda name: "model")
    for options in (app.Options(), app.Options(serve=True)):
        with suppress(Stop):
            app.main(options)
    assert asked == [LOCAL, LOCAL]
    assert Service("model").host == LOCAL


def test_the_exported_page(tmp_path: Path):
    with make_server(tmp_path, 0) as server:
        assert server.server_address[0] == LOCAL
