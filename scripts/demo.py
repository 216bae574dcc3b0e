"""A page in the browser: photo or words to textured mesh: scripts/demo.py [key=value ...]."""

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config


def main() -> None:
    parser = make_parser(
        "Serve a page on which photos, and with text_to_image=MODEL words, become meshes.",
        "scripts/demo.py --port 7860 limits.upload_mb=20",
        "hi3d.demo.settings:DemoConfig",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one")
    arguments = parse_arguments(parser)
    from hi3d.demo.page import serve
    from hi3d.demo.settings import DemoConfig
    from hi3d.pipelines.image_to_3d import DEFAULT_CONFIG

    config = load_config(DemoConfig, arguments.config or DEFAULT_CONFIG, arguments.overrides)
    serve(config, arguments.host, arguments.port)


if __name__ == "__main__":
    run(main)
