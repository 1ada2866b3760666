"""Door: a page to fill holes in photographs, `python -m moebius.app`; an API with `--serve`.

The photograph stays on the server in full size; the browser gets a smaller one to paint on.
"""

import html
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import tyro

from moebius.console import guard
from moebius.inference.blending import Blend
from moebius.inference.pipeline import InpaintPipeline
from moebius.inference.strategies import Strategy
from moebius.inpaint import pick_device
from moebius.serving.deployment import Service, deploy
from moebius.serving.model import find_model, load_model
from moebius.serving.studio import Choices, Filled, fill_photograph, painted_hole, show_upload
from moebius.serving.uploads import Limits
from moebius.train import start_ray

PROGRAM = "python -m moebius.app"
WAITING = 20
"""Runs that may wait; more are refused."""
DAY_S = 24 * 60 * 60
BRUSH = "#e0218a"
CSS = """
.gradio-container { width: 100%; max-width: 1180px !important; margin: 0 auto !important; }
#head h1 { margin: 0.2em 0 0; }
#foot { opacity: 0.7; font-size: 0.9em; }
"""


@dataclass
class Options:
    """Serve a page, or an API, that fills the holes of photographs."""

    model: str | None = None
    """Model folder, or a repository on the Hub; the built-in one by default."""
    codec: str | None = None
    """Latent codec in place of the model's own: builtin, a folder, or a repository on the Hub."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port to listen on."""
    max_megabytes: float = 30
    """Largest file that is accepted."""
    max_megapixels: float = 50
    """Largest picture that is accepted."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to run."""
    serve: bool = False
    """An HTTP API on Ray Serve (GET /health, POST /inpaint) in place of the page."""
    replicas: int = 1
    """Copies of the model, with --serve."""


def main(options: Options) -> None:
    """Serves until it is stopped."""
    limits = Limits(options.max_megabytes, options.max_megapixels)
    if options.replicas < 1:
        raise ValueError(f"--replicas is {options.replicas}: use at least 1")
    name = find_model(options.model)
    device = str(pick_device(options.device))
    check_address(options.host, options.port)
    if options.serve:
        load_model(name, options.codec, "cpu")  # refused here, not in a replica
        serve_api(
            Service(
                name if options.model is None else _absolute(name),
                None if options.codec is None else _absolute(options.codec),
                device,
                options.replicas,
                options.host,
                options.port,
                limits=limits,
            )
        )
        return
    import_gradio()
    pipeline = load_model(name, options.codec, device)
    with page_running(pipeline, name, limits, options.host, options.port) as address:
        wait(f"Open {address}")


def serve_api(service: Service) -> None:
    """Serves the API until it is stopped."""
    start_ray()
    import ray
    from ray import serve

    try:
        wait(f"Serving {deploy(service)}/inpaint")
    finally:
        serve.shutdown()
        ray.shutdown()


def wait(line: str) -> None:
    """Says what is served, and waits for Ctrl-C."""
    try:
        print(f"{line} (Ctrl-C stops)", flush=True)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def check_address(host: str, port: int) -> None:
    """Raises ValueError for an address that cannot be listened on."""
    if not 1 <= port <= 65535:
        raise ValueError(f"--port is {port}: use 1 to 65535")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}:{port} ({error}): use another --host or --port"
            ) from error


def import_gradio() -> Any:
    """The library, told to send nothing home.

    Raises:
        ValueError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            f"the page needs gradio ({error}): pip install 'moebius-inpainting[app]'"
        ) from error
    return gradio


@contextmanager
def page_running(
    pipeline: InpaintPipeline, name: str, limits: Limits, host: str, port: int
) -> Iterator[str]:
    """The page's address while it is served; uploads and results are deleted at the end."""
    with TemporaryDirectory(prefix="moebius-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when components are made
        gr = import_gradio()
        page = build_page(gr, pipeline, name, limits, Path(folder))
        page.queue(default_concurrency_limit=1, max_size=WAITING, status_update_rate=1)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                max_file_size=limits.bytes,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                run_history=False,
                footer_links=[],
                theme=gr.themes.Soft(
                    primary_hue="pink",
                    font=["system-ui", "sans-serif"],
                    font_mono=["ui-monospace", "monospace"],
                ),
                css=CSS,
            )
            yield address.rstrip("/")
        finally:
            page.close(verbose=False)


def build_page(gr: Any, pipeline: InpaintPipeline, name: str, limits: Limits, folder: Path) -> Any:
    """The page's components and what they do."""

    def receive(upload: str | None) -> Any:
        if upload is None:
            return gr.ImageEditor(None, visible=False)
        with told(gr):
            shown = show_upload(Path(upload), limits)
        value = {"background": shown, "layers": [], "composite": None}
        return gr.ImageEditor(value, visible=True)

    def run(
        upload: str | None,
        editor: dict[str, Any] | None,
        old: Filled | None,
        *controls: Any,
        progress: Any = gr.Progress(),  # noqa: B008  (how gradio knows that it is wanted)
    ) -> Any:
        steps, guidance, strategy, blend, seed, count = controls
        choices = Choices(int(steps), guidance, strategy, blend, int(seed or 0), int(count))
        progress(0, desc="Reading")
        with told(gr):
            if upload is None:
                raise ValueError("no photograph yet: choose one first")
            filled = fill_photograph(
                pipeline,
                Path(upload),
                painted_hole((editor or {}).get("layers") or ()),
                choices,
                limits,
                folder,
                lambda step, number: progress(
                    (step, choices.steps), desc=f"Pass {number}", unit="steps"
                ),
            )
        if old is not None:
            old.delete()
        pictures = gr.Gallery(filled.after, visible=choices.count > 1)
        return filled, pictures, *choose(filled, 0)

    def choose(filled: Filled, index: int) -> tuple[Any, Any]:
        return (
            gr.ImageSlider((filled.before, filled.after[index])),
            gr.DownloadButton(value=filled.full[index], interactive=True),
        )

    def select(filled: Filled, event: gr.SelectData) -> tuple[Any, Any]:
        return choose(filled, event.index)

    with gr.Blocks(title="Moebius", analytics_enabled=False, delete_cache=(3600, DAY_S)) as page:
        gr.Markdown(
            f"# Moebius\nChoose a photograph of up to {limits.megabytes:g} MB and "
            f"{limits.megapixels:g} megapixels, paint over what should go, press **Fill**. "
            "Everything else stays as it is, in full size.",
            elem_id="head",
        )
        filled = gr.State(delete_callback=lambda old: old is not None and old.delete())
        with gr.Row():
            with gr.Column(min_width=320):
                upload = gr.File(
                    label="Photograph",
                    file_types=["image"],
                    height=150,
                    elem_id="upload",
                )
                editor = gr.ImageEditor(
                    visible=False,  # until there is something to paint on
                    show_label=False,  # would lie under the tools on a telephone
                    height=440,
                    type="pil",
                    format="png",
                    sources=(),
                    transforms=(),
                    layers=False,
                    brush=gr.Brush(colors=[BRUSH], color_mode="fixed"),
                    buttons=["fullscreen"],
                    elem_id="editor",
                )
                button = gr.Button("Fill", variant="primary", size="lg", elem_id="fill")
                with gr.Accordion("Advanced", open=False):
                    controls = advanced_controls(gr, pipeline)
            with gr.Column(min_width=320):
                slider = gr.ImageSlider(
                    label="Before and after", format="png", interactive=False, elem_id="slider"
                )
                gallery = gr.Gallery(
                    label="Results, choose one",
                    visible=False,
                    columns=4,
                    height=160,
                    allow_preview=False,
                    buttons=[],
                    elem_id="gallery",
                )
                download = gr.DownloadButton(
                    "Download in full size (PNG)", interactive=False, elem_id="download"
                )
        gr.Markdown(
            f"Model `{html.escape(name)}`, {pipeline.side} px. Pictures stay on this server "
            "and are deleted within a day, or when it stops.",
            elem_id="foot",
        )
        hidden = {"api_visibility": "private"}
        upload.change(receive, upload, editor, **hidden)
        button.click(
            run,
            [upload, editor, filled, *controls],
            [filled, gallery, slider, download],
            show_progress_on=slider,
            **hidden,
        )
        gallery.select(select, filled, [slider, download], **hidden)
    return page


def advanced_controls(gr: Any, pipeline: InpaintPipeline) -> list[Any]:
    """Steps, guidance, strategy, blend, seed and number of results."""
    own = pipeline.config["guidance_scale"]
    return [
        gr.Slider(1, 100, 20, step=1, label="Steps", info="More take longer"),
        gr.Slider(1, 10, own, step=0.1, label="Guidance", info="1 is none"),
        gr.Dropdown(list(get_args(Strategy)), value="auto", label="Strategy"),
        gr.Dropdown(list(get_args(Blend)), value="feather", label="Blend"),
        gr.Number(0, precision=0, minimum=0, maximum=2**53, label="Seed"),
        gr.Slider(1, 8, 1, step=1, label="Results"),
    ]


@contextmanager
def told(gr: Any) -> Iterator[None]:
    """Shows what is wrong as one line in the page, and in no log."""
    try:
        yield
    except (ValueError, ArithmeticError, RuntimeError, OSError) as error:
        # The page renders messages as HTML, and names of files may hold any.
        line = html.escape(str(error).partition("\n")[0])
        raise gr.Error(line, print_exception=False) from error


def _absolute(name: str) -> str:
    """Replicas have another working directory."""
    return str(Path(name).absolute()) if Path(name).is_dir() else name


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options, prog=PROGRAM, config=(tyro.conf.FlagCreatePairsOff,))))
