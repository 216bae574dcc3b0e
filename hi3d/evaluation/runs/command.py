"""The commands `tables` and `consistency` of scripts/evaluate.py."""

from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments
from hi3d.config import check_path, config_to_dict, load_config
from hi3d.errors import InputError


def tables(argv: list[str]) -> None:
    """Parse the words after `tables`, and run.

    Raises:
        InputError: a setting, the set or the output is wrong, or `--check` found faults.
    """
    parser = make_parser(
        "Generate, reconstruct and score a whole set of objects by several methods.",
        "scripts/evaluate.py tables --config configs/eval/gso30.yaml objects_root=FOLDER "
        "--output outputs/gso30",
        "hi3d.evaluation.runs.config:TablesConfig",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the table")
    parser.add_argument("--methods", metavar="A,B", help="some of the config's methods alone")
    parser.add_argument("--check", action="store_true", help="check the set's files, nothing more")
    arguments = parse_arguments(parser, argv)
    if arguments.config is None:
        raise InputError("no config given: add --config configs/eval/gso30.yaml")
    if arguments.output is None and not arguments.check:
        raise InputError("no output given: add --output DIR")
    from hi3d.evaluation.object_sets import load_objects, set_faults
    from hi3d.evaluation.runs.config import TablesConfig
    from hi3d.evaluation.runs.tables import run_tables, table_lines

    config = load_config(TablesConfig, arguments.config, arguments.overrides)
    if arguments.check:
        faults = set_faults(config.objects, config.objects_root)
        if faults:
            raise InputError(f"{len(faults)} faults of {config.objects}: " + "; ".join(faults))
        print(f"{len(load_objects(config.objects, config.objects_root))} objects are complete")
        return
    names = arguments.methods.split(",") if arguments.methods else None
    print(table_lines(run_tables(config, arguments.output, names)))


def consistency(argv: list[str]) -> None:
    """Parse the words after `consistency`, and score the views of a folder by themselves.

    Raises:
        InputError: a setting or the folder is wrong.
    """
    parser = make_parser(
        "Score how well the views of an orbit agree with each other, without a truth.",
        "scripts/evaluate.py consistency --pred outputs/mailbox_photo/refined",
        "hi3d.evaluation.consistency:ConsistencyConfig",
    )
    parser.add_argument("--pred", type=Path, required=True, metavar="DIR", help="folder of views")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores")
    arguments = parse_arguments(parser, argv)
    check_path("--pred", arguments.pred)
    from hi3d.evaluation.consistency import ABOUT, COLUMNS, ConsistencyConfig, view_consistency
    from hi3d.evaluation.mesh_files import read_mesh
    from hi3d.evaluation.tables import markdown_table, write_results
    from hi3d.images.lpips import LpipsNetwork, lpips_of
    from hi3d.pipelines.given_views import load_views

    config = load_config(ConsistencyConfig, arguments.config, arguments.overrides)
    views = load_views(arguments.pred, config.elevation_deg)
    mesh = None if config.mesh is None else read_mesh(Path(config.mesh), None)
    scores = view_consistency(views, config, lpips_of(LpipsNetwork.vgg), mesh)
    name = arguments.pred.resolve().name
    shown = {COLUMNS[score].heading: value for score, value in scores.items()}
    print(markdown_table({name: shown}, decimals=4, first_column="views"), end="")
    print(ABOUT)
    if arguments.json:
        results = {name: scores}
        about = {"protocol": ABOUT, "settings": config_to_dict(config)}
        write_results(arguments.json, results, about)
