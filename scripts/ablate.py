"""Vary one key of the chain's settings: scripts/ablate.py --config FILE --output DIR."""

from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import check_path, load_config
from hi3d.errors import InputError


def main() -> None:
    parser = make_parser(
        "Run the chain with each value of one key on objects with known truth, and write a table "
        "and a page with plots. The same command goes on with what an earlier run left.",
        "scripts/ablate.py --config configs/ablation/m.yaml --output outputs/ablation/m",
        "hi3d.evaluation.runs.ablation:AblationConfig",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    arguments = parse_arguments(parser)
    if arguments.config is None:
        raise InputError("no config given: add --config configs/ablation/m.yaml")
    check_path("--output", arguments.output)
    from hi3d.evaluation.runs.ablation import AblationConfig
    from hi3d.evaluation.runs.tables import run_tables, table_lines

    config = load_config(AblationConfig, arguments.config, arguments.overrides)
    print(table_lines(run_tables(config.tables(), Path(arguments.output))))


if __name__ == "__main__":
    run(main)
