"""The page, made with Gradio: what visitors see, and the calls of other programs."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hi3d.demo.desk import START_ELEVATION_DEG, Desk, Taken
from hi3d.demo.guard import VIEWER, Guard, only_uploads
from hi3d.demo.job import CANCELLED
from hi3d.demo.settings import DemoConfig, choices_of
from hi3d.demo.shown import message, result, result_files
from hi3d.demo.studio import Studio
from hi3d.demo.visitors import Visitors
from hi3d.diffusion.memory.modes import MEMORY_MODES
from hi3d.errors import InputError
from hi3d.pipelines.image_to_3d import check_models
from hi3d.progress import console

SWEEP_SECONDS = 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TITLE = "Hi3D: one photo to a textured mesh"
HINT = "Send a photo of one object, look at its cut-out and camera, then make the mesh."
CSS = Path(__file__).with_name("page.css")


def serve(config: DemoConfig, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve the page until the process is interrupted; then all its temporary files are gone.

    Args:
        config: settings.
        host: address to listen on.
        port: 1 to 65535; 0 takes a free one.

    Raises:
        InputError: a model folder or the address is wrong, or Gradio is not installed.
    """
    check_models(config)
    _check_gradio()
    root = Path(tempfile.mkdtemp(prefix="hi3d_demo_"))
    visitors = Visitors(root, 60 * config.limits.kept_minutes)
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(root)
        page = _page(Desk(Studio(config), visitors))
        port = _launched(page, config, host, port)
        console.print(f"the page is at http://{host}:{port}", markup=False)
        if host not in LOOPBACK:
            console.print("everybody who reaches this address can use the page")
        while True:
            time.sleep(SWEEP_SECONDS)
            visitors.sweep()
    except KeyboardInterrupt:
        console.print("closed")
    finally:
        visitors.close()


def _check_gradio() -> None:
    """Raise where the library is not there; tell it to tell nobody.

    Raises:
        InputError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError(
            "the page needs gradio: pip install 'gradio>=6', or the extra demo of hi3d"
        ) from error


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises:
        InputError: it is taken, or there is no such address.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return int(trial.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {host}:{port}: give another --host or --port"
        ) from error


def _launched(page: Any, config: DemoConfig, host: str, port: int) -> int:
    """Starts the server; its port."""
    import gradio
    from fastapi.middleware import Middleware

    port = _free_port(host, port)
    theme = gradio.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    head = f'<script type="module" src="{VIEWER[1:]}"></script>'
    page.queue(max_size=8 * (config.limits.waiting + 1), default_concurrency_limit=4)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=config.limits.upload_mb * 1_000_000,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=CSS.read_text(),
        head=head,
        app_kwargs={"middleware": [Middleware(Guard)]},
    )
    return port


def _page(desk: Desk) -> Any:
    """The layout, and what its parts do."""
    import gradio as gr

    config = desk.studio.config
    limits, sides = config.limits, config.texture_sides
    steps, views = config.orbit.num_inference_steps, config.mesh.interpolated_views
    auto = config.elevation_deg == "auto"
    start_deg = START_ELEVATION_DEG if auto else float(config.elevation_deg)
    seed = config.seed if isinstance(config.seed, int) else config.seed[0]
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                photo = gr.File(label="Photo", height=130, elem_id="photo")
                with gr.Row(visible=desk.studio.artist is not None):
                    prompt = gr.Textbox(
                        label="or words", placeholder="a wooden mailbox with a red flag", scale=4
                    )
                    draw = gr.Button("Draw", scale=1, min_width=80)
                with gr.Row():
                    options: dict[str, Any] = {
                        "show_label": False,
                        "interactive": False,
                        "buttons": [],
                    }
                    options |= {"min_width": 140}
                    cutout = gr.Image(label="Cut-out", elem_id="cutout", **options)
                    camera = gr.Image(label="Camera", elem_id="camera", **options)
                line = gr.HTML(message(HINT), elem_id="line")
                elevation = gr.Slider(
                    min(-30, start_deg),
                    max(80, start_deg),
                    start_deg,
                    step=0.5,
                    label="Elevation of the camera, degrees",
                )
                estimate = gr.Checkbox(auto, label="Estimate the elevation", interactive=True)
                with gr.Accordion("Seed, quality, memory", open=False):
                    seed_box = gr.Number(seed, label="Seed", precision=0, minimum=0)
                    most = max(limits.steps, steps)
                    steps_box = gr.Slider(1, most, steps, step=1, label="Sampling steps")
                    most = max(limits.interpolated_views, views)
                    views_box = gr.Slider(0, most, views, step=1, label="Interpolated views, M")
                    texture = gr.Dropdown(
                        sides, value=config.mesh.texture.resolution, label="Side of the texture"
                    )
                    memory = gr.Radio(list(MEMORY_MODES), value=config.memory, label="Memory")
                with gr.Row():
                    make = gr.Button("Make the mesh", variant="primary", elem_id="make", scale=2)
                    cancel = gr.Button("Cancel", elem_id="cancel", scale=1)
            with gr.Column(scale=5, min_width=320):
                mesh = gr.HTML(result(None), elem_id="mesh")
                status = gr.HTML(elem_id="status")
        shown = gr.HTML(elem_id="previews")
        files = gr.File(label="Files", file_count="multiple", visible=False)
        call = gr.Button(visible=False)
        choices = [elevation, estimate, seed_box, steps_box, views_box, texture, memory]
        _connect(desk, page, photo, prompt, draw, line, cutout, camera, choices)
        _connect_make(desk, make, cancel, call, photo, choices, [status, shown, mesh], files)
    return page


def _connect(
    desk: Desk, page: Any, photo: Any, prompt: Any, draw: Any, line: Any, cutout: Any,
    camera: Any, choices: list[Any],
) -> None:  # fmt: skip
    """What happens before a mesh is made."""
    import gradio as gr

    elevation, estimate = choices[:2]
    private = {"api_visibility": "private", "show_progress": "hidden"}
    pictures = [line, cutout, camera, elevation]

    def told(taken: Taken) -> tuple[Any, ...]:
        text = message(
            "Is all of the object cut out? Move the slider until it stands on the rings."
        )
        return text, taken.cutout, taken.camera, taken.elevation_deg

    def refused(error: InputError) -> tuple[Any, ...]:
        return message(str(error), "error"), None, None, gr.skip()

    def take(sent: str | None, request: gr.Request) -> tuple[Any, ...]:
        if sent is None:
            return message(HINT), None, None, gr.skip()
        try:
            return told(desk.take_photo(request.session_hash, sent))
        except InputError as error:
            return refused(error)

    def drawn(words: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        try:
            for news in desk.draw(request.session_hash, words):
                if isinstance(news, Taken):
                    yield told(news)
                else:
                    yield news, None, None, gr.skip()
        except InputError as error:
            yield refused(error)

    def moved(angle: float, request: gr.Request) -> tuple[Any, bool]:
        return desk.camera(request.session_hash, angle), False

    def ticked(estimate: bool, request: gr.Request) -> tuple[Any, Any]:
        angle = desk.estimate(request.session_hash) if estimate else None
        if angle is None:
            return gr.skip(), gr.skip()
        return angle, desk.camera(request.session_hash, angle)

    def left(request: gr.Request) -> None:
        desk.visitors.leave(request.session_hash)

    only_uploads(photo)
    photo.change(take, [photo], pictures, **private)
    gr.on([draw.click, prompt.submit], drawn, [prompt], pictures, **private)
    elevation.input(moved, [elevation], [camera, estimate], trigger_mode="always_last", **private)
    estimate.input(ticked, [estimate], [elevation, camera], **private)
    page.unload(left)


def _connect_make(
    desk: Desk, make: Any, cancel: Any, call: Any, photo: Any, choices: list[Any],
    outputs: list[Any], files: Any,
) -> None:  # fmt: skip
    """What makes meshes, for visitors and for programs."""
    import gradio as gr

    def made(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        mesh: Any = result(None)
        try:
            for news in desk.make(request.session_hash, choices_of(*values)):
                pictures = gr.skip() if news.previews is None else news.previews
                yield news.stages, pictures, mesh if news.result is None else result(news.result)
                mesh = gr.skip()
        except InputError as error:
            kind = "note" if str(error) == CANCELLED else "error"
            yield message(str(error), kind), "", result(None)

    def generate(
        photo: str, elevation_deg: float, estimate_elevation: bool, seed: float, steps: float,
        interpolated_views: float, texture: float, memory: str, request: gr.Request,
    ) -> list[str]:  # fmt: skip
        """Photo to mesh.glb, mesh_obj.zip, splats.ply, turntable.mp4, report.json, index.html."""
        try:
            desk.take_photo(request.session_hash, photo)
            chosen = choices_of(
                elevation_deg, estimate_elevation, seed, steps, interpolated_views, texture, memory
            )
            *_, last = desk.make(request.session_hash, chosen)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        assert last.result is not None
        return [str(path) for path in result_files(last.result)]

    def stop(request: gr.Request) -> None:
        desk.cancel(request.session_hash)

    together = {"concurrency_limit": desk.studio.turns.most_waiting + 1}
    private = {"api_visibility": "private", "show_progress": "hidden"}
    make.click(made, choices, outputs, concurrency_id="make", **together, **private)
    cancel.click(stop, api_name="cancel", queue=False)
    call.click(generate, [photo, *choices], [files], api_name="generate",
               concurrency_id="generate", **together)  # fmt: skip
