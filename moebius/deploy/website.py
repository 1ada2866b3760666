"""The page that runs exported graphs in a browser: its files, onnxruntime-web, a server."""

import json
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "assets" / "web"
PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
RUNTIME = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""The processor's build and WebGPU's; a browser loads one of them."""
LICENCE = "package.json"
"""Says the runtime's version and licence, MIT."""
HEADERS = {
    # A page may use threads only where these two isolate it.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}


def write_page(folder: Path, runtime: Path) -> list[str]:
    """Copies the page and the runtime's files; returns the names written."""
    for file in PAGE.iterdir():
        shutil.copy2(file, folder / file.name)
    (folder / "ort").mkdir(exist_ok=True)
    for name in (*RUNTIME, LICENCE):
        shutil.copy2(runtime / name, folder / "ort" / name)
    return [*(file.name for file in PAGE.iterdir()), *(f"ort/{n}" for n in (*RUNTIME, LICENCE))]


def fetch_runtime(cache: Path) -> Path:
    """A folder with onnxruntime-web's files, fetched by npm where the cache lacks them.

    Raises:
        ValueError: npm is absent, or gives no package.
    """
    folder = cache / f"{PACKAGE}-{VERSION}"
    if all((folder / name).is_file() for name in (*RUNTIME, LICENCE)):
        return folder
    if shutil.which("npm") is None:
        raise ValueError(
            f"npm is not installed, and {folder} does not hold {PACKAGE}: install Node.js"
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--json", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"npm does not give {PACKAGE} {VERSION}: {reason}")
    archive = folder / json.loads(done.stdout)[0]["filename"]
    with tarfile.open(archive) as package:
        _extract(package, f"package/{LICENCE}", folder / LICENCE)
        for name in RUNTIME:
            _extract(package, f"package/dist/{name}", folder / name)
    archive.unlink()
    return folder


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder on localhost; port 0 takes a free one."""
    return _Server(("127.0.0.1", port), partial(_Handler, directory=str(folder)))


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a file is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not worth a line each."""


def _extract(package: tarfile.TarFile, name: str, path: Path) -> None:
    try:
        member = package.extractfile(name)
    except KeyError:
        member = None
    if member is None:
        raise ValueError(f"{PACKAGE} {VERSION} has no {name}: the export needs updating")
    path.write_bytes(member.read())
