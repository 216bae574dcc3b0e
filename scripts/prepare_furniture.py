"""Extract the open furniture of the Debian package sweethome3d-furniture as OBJ objects."""

from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config


def main() -> None:
    parser = make_parser(
        __doc__,
        "scripts/prepare_furniture.py --output data/objects/furniture cc0_only=true",
        "hi3d.assets.furniture:FurnitureConfig",
    )
    parser.add_argument(
        "catalogues",
        metavar="FILE.sh3f",
        type=Path,
        nargs="*",
        help="default: those of the installed package",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder of the objects"
    )
    arguments = parse_arguments(parser)
    from hi3d.assets.furniture import FurnitureConfig, prepare_furniture

    config = load_config(FurnitureConfig, arguments.config, arguments.overrides)
    prepare_furniture(arguments.output, config, arguments.catalogues)


if __name__ == "__main__":
    run(main)
