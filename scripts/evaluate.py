"""Score views or a mesh against ground truth."""

from dataclasses import asdict
from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import check_number, check_path, load_config
from hi3d.errors import InputError


def main() -> None:
    parser = make_parser(
        __doc__,
        "scripts/evaluate.py mesh --pred outputs/mesh/mesh.glb "
        "--gt data/examples/objects/mailbox.glb --rotate-gt-deg 50",
        "hi3d.evaluation.view_metrics:ViewMetricsConfig",
        "hi3d.evaluation.mesh_metrics:MeshMetricsConfig",
    )
    parser.add_argument("what", choices=["views", "mesh"], help="folders of views, or mesh files")
    parser.add_argument("--pred", required=True, type=Path, metavar="PATH", help="what to score")
    parser.add_argument("--gt", required=True, type=Path, metavar="PATH", help="ground truth")
    parser.add_argument(
        "--rotate-gt-deg",
        type=float,
        default=0.0,
        metavar="A",
        help="azimuth at which the photo shows the true mesh: turns it back by A degrees",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores")
    arguments = parse_arguments(parser)
    if arguments.what == "views" and arguments.rotate_gt_deg:
        raise InputError("--rotate-gt-deg turns a mesh: leave it out for views")
    check_number("--rotate-gt-deg", arguments.rotate_gt_deg, -360, 360)
    check_path("--pred", arguments.pred)
    check_path("--gt", arguments.gt)
    from hi3d.assets.surface_mesh import load_mesh
    from hi3d.evaluation.mesh_metrics import MeshMetricsConfig, rotated_about_up, score_mesh
    from hi3d.evaluation.tables import markdown_table, write_results
    from hi3d.evaluation.view_metrics import ViewMetricsConfig, score_views
    from hi3d.views import Views

    if arguments.what == "views":
        view_config = load_config(ViewMetricsConfig, arguments.config, arguments.overrides)
        views = score_views(Views.load(arguments.pred), Views.load(arguments.gt), view_config)
        scores = views.means()
    else:
        mesh_config = load_config(MeshMetricsConfig, arguments.config, arguments.overrides)
        truth = rotated_about_up(load_mesh(arguments.gt), -arguments.rotate_gt_deg)
        scores = asdict(score_mesh(load_mesh(arguments.pred), truth, mesh_config))
    results = {arguments.pred.resolve().name: scores}
    print(markdown_table(results, decimals=4), end="")
    if arguments.json:
        write_results(arguments.json, results)


if __name__ == "__main__":
    run(main)
