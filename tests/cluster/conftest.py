"""A Ray cluster as a user starts one: `ray start`, own ports and folder, token authentication."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]
STARTED = "Ray runtime started"
PORTS = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")


class LocalCluster:
    """A head and other nodes, each a session of processes on this machine."""

    def __init__(self, place: Path) -> None:
        self.place, self.home, self.modules = place, place / "home", place / "modules"
        self.home.mkdir()
        self.modules.mkdir()
        self.nodes: list[subprocess.Popen] = []
        kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        self.environment = kept | {
            "HOME": str(self.home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.modules),  # not this repository: a job brings its own copy
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a-token-of-the-tests-that-is-long-enough",
            "RAY_USAGE_STATS_ENABLED": "0",
            "AWS_ACCESS_KEY_ID": "made-up",
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_EC2_METADATA_DISABLED": "true",
            # Nodes share this machine's memory: none may kill its workers for what others take.
            "RAY_memory_monitor_refresh_ms": "0",
        }
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.address = f"127.0.0.1:{ports['port']}"
        self.jobs = f"http://127.0.0.1:{ports['dashboard-port']}"
        self._ports = [f"--{name}={port}" for name, port in ports.items()]

    def start(self) -> None:
        """Starts the head, with one CPU."""
        self._start(["--head", f"--temp-dir={self.place}", *self._ports])

    def add_node(self, within: Sequence[str] = ()) -> subprocess.Popen:
        """Starts another node of one CPU, `within` another program if that is given."""
        # Its own folder, as a machine has its own disk: nodes renew a job's copy there.
        own = self.place / f"n{len(self.nodes)}"
        own.mkdir(exist_ok=True)
        return self._start([f"--address={self.address}", f"--temp-dir={own}"], within)

    def kill_node(self, node: subprocess.Popen) -> None:
        """As when a machine loses its power."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        self.nodes.remove(node)

    def submit(self, *command: str | Path) -> tuple[int, str]:
        """Exit code and output of `ray job submit --working-dir .` from the repository."""
        job = self.start_job(*command)
        output, _ = job.communicate(timeout=800)
        return job.returncode, output

    def start_job(self, *command: str | Path) -> subprocess.Popen[str]:
        """The same, while it runs."""
        submit = [BIN / "ray", "job", "submit", "--address", self.jobs, "--working-dir", "."]
        return subprocess.Popen(
            [str(part) for part in (*submit, "--", *command)],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start_driver(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Python beside the head, as from a shell on its machine; its output is the test's."""
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=REPOSITORY,
            env=self.environment | {"RAY_ADDRESS": self.address, "PYTHONPATH": str(REPOSITORY)},
        )

    def stop(self) -> None:
        """Ends every node, and what it started."""
        for node in reversed(self.nodes):
            node.send_signal(signal.SIGTERM)  # `ray start --block` ends its processes
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(node.poll() is None for node in self.nodes):
            time.sleep(0.1)
        for node in self.nodes:
            kill_group(node.pid)
            node.wait()

    def _start(self, options: Sequence[str], within: Sequence[str] = ()) -> subprocess.Popen:
        log = self.place / f"node{len(self.nodes)}-{time.time_ns():x}.log"
        with log.open("w") as file:
            node = subprocess.Popen(
                [*within, BIN / "ray", "start", "--block", "--num-cpus=1", *options],
                cwd=self.place,
                # Its own disk for copies of what lies in an object store.
                env=self.environment | {"MOEBIUS_COPIES": f"{self.place}/disk{len(self.nodes)}"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)
        deadline = time.monotonic() + 200
        while STARTED not in log.read_text():
            if node.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no node: {log.read_text()}")
            time.sleep(0.2)
        return node


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def kill_group(leader: int) -> None:
    """Kills what is left of a process group."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A head of one CPU; whatever a module starts on it ends with the module."""
    # Ray's sockets lie below it, and a socket's path is short: not in pytest's folder.
    place = Path(tempfile.mkdtemp(prefix="moebius-ray-"))
    started = LocalCluster(place)
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(place, ignore_errors=True)
