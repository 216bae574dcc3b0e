"""Write contact sheets of training data: orbits, cameras, depth, normals and degraded inputs."""

from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import check_number, check_seed, load_config
from hi3d.progress import console


def main() -> None:
    parser = make_parser(
        f"{__doc__} --config and key=value choose the degradation.",
        "scripts/inspect_data.py outputs/orbits --output outputs/sheets "
        "--config configs/degradation/official.yaml bottleneck=0.5",
        "hi3d.degradation.draws:DegradationConfig",
    )
    parser.add_argument("source", metavar="ORBITS", help="folder of orbits, shards, or their URLs")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder of the sheets"
    )
    parser.add_argument("--orbits", metavar="N", type=int, default=8, help="the first N (8)")
    parser.add_argument(
        "--seeds",
        metavar="SEED",
        type=int,
        nargs="*",
        default=[0, 1, 2],
        help="of the degraded inputs (0 1 2); without a number there are none",
    )
    parser.add_argument("--columns", metavar="N", type=int, default=6, help="views shown (6)")
    parser.add_argument("--cell", metavar="PX", type=int, default=192, help="side of a view (192)")
    arguments = parse_arguments(parser)
    check_number("--orbits", arguments.orbits, 1, 1e6)
    check_number("--columns", arguments.columns, 1, 100)
    check_number("--cell", arguments.cell, 16, 2048)
    for seed in arguments.seeds:
        check_seed(seed)
    from hi3d.degradation.draws import DegradationConfig
    from hi3d.pipelines.data_sheets import write_data_sheets

    degradation = load_config(DegradationConfig, arguments.config, arguments.overrides)
    paths = write_data_sheets(
        arguments.source,
        arguments.output,
        degradation if arguments.seeds else None,
        arguments.orbits,
        arguments.seeds,
        arguments.columns,
        arguments.cell,
    )
    console.print(f"{len(paths)} sheets in {arguments.output}", markup=False)


if __name__ == "__main__":
    run(main)
