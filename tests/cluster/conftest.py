"""A Ray head as a user starts one: own ports, own temporary folder, token authentication."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Head:
    """A running head."""

    address: str
    """Of its job server."""
    environment: dict[str, str]
    """What clients need: the token, and programs from this environment's `bin`."""
    home: Path
    """Home of whoever runs it."""

    def submit(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`ray job submit` from the repository, waiting for the job's end."""
        command = [BIN / "ray", "job", "submit", "--address", self.address, *arguments]
        return subprocess.run(
            [str(part) for part in command],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=280,
        )


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """`ray start --head` in the foreground; it and all that it started end with the module."""
    # Ray's sockets lie below it, and a socket's path is short: not in pytest's folder.
    place = Path(tempfile.mkdtemp(prefix="moebius-ray-"))
    home = place / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment = kept | {
        "HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-the-tests-that-is-long-enough",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = [f"--{name}={port}" for name, port in ports.items()]
    log = (place / "head.log").open("w")
    process = subprocess.Popen(
        [
            BIN / "ray",
            "start",
            "--head",
            "--block",
            "--num-cpus=2",
            f"--temp-dir={place}",
            *options,
        ],
        cwd=place,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        wait_for(f"{address}/api/version", process, place / "head.log")
        yield Head(address, environment, home)
    finally:
        process.send_signal(signal.SIGTERM)  # `ray start --block` then ends what it started
        try:
            process.wait(timeout=30)
        finally:
            kill_session(process.pid)
            log.close()
            shutil.rmtree(place, ignore_errors=True)


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    """Until the job server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:  # it answers, if only for want of a token
            return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"no head: {log.read_text()}")


def kill_session(pid: int) -> None:
    """Kills what is left of the group that a process leads."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
