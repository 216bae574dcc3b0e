"""Photo to textured mesh: scripts/generate.py PHOTO [PHOTO ...] --output DIR [key=value ...]."""

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config


def main() -> None:
    parser = make_parser(
        "Make a textured mesh (GLB), a turntable video and a contact sheet of every photo.",
        "scripts/generate.py data/examples/mailbox_photo.jpg --output outputs seed=0",
        "hi3d.pipelines.image_to_3d:GenerateConfig",
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image of one object")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    arguments = parse_arguments(parser)
    from hi3d.pipelines.image_to_3d import DEFAULT_CONFIG, GenerateConfig
    from hi3d.pipelines.many.generate import generate

    config = load_config(GenerateConfig, arguments.config or DEFAULT_CONFIG, arguments.overrides)
    generate(arguments.photos, arguments.output, config)


if __name__ == "__main__":
    run(main)
