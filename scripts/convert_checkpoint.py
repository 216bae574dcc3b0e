"""Convert a released checkpoint (Hi3D's stages, SVD) to a model folder."""

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.errors import InputError


def main() -> None:
    parser = make_parser(
        __doc__,
        "scripts/convert_checkpoint.py --source official-stage1 --input first_stage.pt "
        "--output models/official/stage1",
    )
    parser.add_argument(
        "--source",
        required=True,
        choices=["official-stage1", "official-stage2", "svd"],
        help="what the checkpoint is",
    )
    parser.add_argument(
        "--input", metavar="FILE_OR_FOLDER", required=True, help=".pt, .ckpt or .safetensors"
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="a new model folder")
    parser.add_argument(
        "--head-channels", type=int, default=64, help="width of the UNet's attention heads"
    )
    arguments = parse_arguments(parser)
    for given in (arguments.config, *arguments.overrides):
        if given:
            raise InputError(f"{given}: this command has no settings, leave it out")
    from hi3d.diffusion.official.folder import convert_checkpoint

    convert_checkpoint(arguments.source, arguments.input, arguments.output, arguments.head_channels)


if __name__ == "__main__":
    run(main)
