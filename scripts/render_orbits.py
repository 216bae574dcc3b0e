"""Render one object or a folder of objects to orbits."""

from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config
from hi3d.rendering.orbits import OrbitRenderConfig, render_orbits


def main() -> None:
    parser = make_parser(
        __doc__,
        "python scripts/render_orbits.py data/objects --output orbits "
        "--config configs/render_orbits.yaml num_workers=4",
    )
    parser.add_argument("objects", metavar="OBJECT_OR_FOLDER", type=Path)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True)
    arguments = parse_arguments(parser)
    config = load_config(OrbitRenderConfig, arguments.config, arguments.overrides)
    render_orbits(arguments.objects, arguments.output, config)


if __name__ == "__main__":
    run(main)
