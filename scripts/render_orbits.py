"""Render objects to orbits; the same command finishes a run that was ended."""

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config


def main() -> None:
    parser = make_parser(
        __doc__,
        "scripts/render_orbits.py data/examples/objects --output outputs/orbits "
        "--config configs/render_orbits/paper.yaml resolution=512\n"
        "A SLURM array of 16 tasks:\n"
        "  sbatch --array=0-15 --wrap 'python scripts/render_orbits.py data/objects "
        "--output data/orbits/train shard=$SLURM_ARRAY_TASK_ID/16'",
        "hi3d.orbits.config:OrbitRenderConfig",
    )
    parser.add_argument(
        "objects",
        metavar="OBJECT_OR_FOLDER",
        help="an object file, a folder of them, a list in a text file, or objaverse:UID",
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="folder of the orbits")
    arguments = parse_arguments(parser)
    from hi3d.orbits.config import OrbitRenderConfig
    from hi3d.orbits.run import render_orbits

    config = load_config(OrbitRenderConfig, arguments.config, arguments.overrides)
    render_orbits(arguments.objects, arguments.output, config)


if __name__ == "__main__":
    run(main)
