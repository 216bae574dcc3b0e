"""Views to textured mesh: scripts/reconstruct.py VIEWS --output DIR [key=value ...]."""

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config
from hi3d.progress import console


def main() -> None:
    parser = make_parser(
        "Make a textured mesh from a folder of views with cameras.",
        "scripts/reconstruct.py outputs/mailbox_photo/refined --output outputs/mesh",
        "hi3d.pipelines.views_to_mesh:ReconstructConfig",
    )
    parser.add_argument(
        "views",
        metavar="VIEWS",
        help="folder of images with cameras.json, transforms.json, a COLMAP model or camera-16.pkl",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    arguments = parse_arguments(parser)
    from hi3d.pipelines.views_to_mesh import ReconstructConfig, reconstruct

    config = load_config(ReconstructConfig, arguments.config, arguments.overrides)
    reconstruct(arguments.views, config, arguments.output)
    console.print(f"mesh: {arguments.output}/mesh.glb")


if __name__ == "__main__":
    run(main)
