"""Score views or a mesh against ground truth, or make the tables of a whole set of objects."""

import sys
from dataclasses import asdict
from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import check_number, check_path, config_to_dict, load_config
from hi3d.errors import InputError
from hi3d.evaluation.runs.command import tables


def main() -> None:
    if sys.argv[1:2] == ["tables"]:
        return tables(sys.argv[2:])
    parser = make_parser(
        __doc__,
        "scripts/evaluate.py mesh --pred outputs/mesh/mesh.glb "
        "--gt data/examples/objects/mailbox.glb --rotate-gt-deg 50",
        "hi3d.evaluation.view_metrics:ViewMetricsConfig",
        "hi3d.evaluation.mesh_files:MeshFilesConfig",
    )
    parser.add_argument("what", choices=["views", "mesh"], help="or tables: see tables --help")
    parser.add_argument("--pred", required=True, type=Path, metavar="PATH", help="what to score")
    parser.add_argument("--gt", required=True, type=Path, metavar="PATH", help="ground truth")
    turn = "azimuth at which the photo shows the true mesh: turns it back by A degrees"
    parser.add_argument("--rotate-gt-deg", type=float, default=0.0, metavar="A", help=turn)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores")
    arguments = parse_arguments(parser)
    if arguments.what == "views" and arguments.rotate_gt_deg:
        raise InputError("--rotate-gt-deg turns a mesh: leave it out for views")
    check_number("--rotate-gt-deg", arguments.rotate_gt_deg, -360, 360)
    for name, path in (("--pred", arguments.pred), ("--gt", arguments.gt)):
        check_path(name, path)
    from hi3d.evaluation.mesh_files import MeshFilesConfig, score_mesh_files
    from hi3d.evaluation.tables import about_scores, markdown_table, write_results
    from hi3d.evaluation.view_matching import score_matched_views
    from hi3d.evaluation.view_metrics import ViewMetricsConfig
    from hi3d.pipelines.given_views import load_views_to_score

    config: ViewMetricsConfig | MeshFilesConfig
    if arguments.what == "views":
        config = load_config(ViewMetricsConfig, arguments.config, arguments.overrides)
        (pred, known), (gt, gt_known) = map(load_views_to_score, (arguments.pred, arguments.gt))
        scores, how = score_matched_views(pred, gt, known and gt_known, config)
    else:
        config = load_config(MeshFilesConfig, arguments.config, arguments.overrides)
        files = (arguments.pred, arguments.gt)
        mesh_scores, how = score_mesh_files(*files, config, arguments.rotate_gt_deg)
        scores = asdict(mesh_scores)
    about = about_scores(arguments.what, how, config_to_dict(config))
    results = {arguments.pred.resolve().name: scores}
    print(markdown_table(results, decimals=4), end="")
    print("\n".join(f"{key}: {about[key]}" for key in ("protocol", "units", "normalization")))
    if arguments.json:
        write_results(arguments.json, results, about)


if __name__ == "__main__":
    run(main)
