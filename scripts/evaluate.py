"""Score views or a mesh against ground truth, views by themselves, or a whole set of objects."""

import sys
from functools import partial
from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import check_number, check_path
from hi3d.errors import InputError
from hi3d.evaluation.runs.command import consistency, tables


def main() -> None:
    for command in (tables, consistency):
        if sys.argv[1:2] == [command.__name__]:
            return command(sys.argv[2:])
    parser = make_parser(
        __doc__,
        "scripts/evaluate.py mesh --pred outputs/mesh/mesh.glb "
        "--gt data/examples/objects/mailbox.glb --rotate-gt-deg 50",
        "hi3d.evaluation.view_metrics:ViewMetricsConfig",
        "hi3d.evaluation.mesh_files:MeshFilesConfig",
    )
    others = "or tables, or consistency: see their --help"
    parser.add_argument("what", choices=["views", "mesh"], help=others)
    parser.add_argument("--pred", required=True, type=Path, metavar="PATH", help="what to score")
    parser.add_argument("--gt", required=True, type=Path, metavar="PATH", help="ground truth")
    turn = "azimuth at which the photo shows the true mesh: turns it back by A degrees"
    parser.add_argument("--rotate-gt-deg", type=float, default=0.0, metavar="A", help=turn)
    protocol = "score as tables do: syncdreamer, whole-surface, ...; views by number"
    parser.add_argument("--protocol", metavar="NAME", help=protocol)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores")
    arguments = parse_arguments(parser)
    if arguments.what == "views" and arguments.rotate_gt_deg:
        raise InputError("--rotate-gt-deg turns a mesh: leave it out for views")
    check_number("--rotate-gt-deg", arguments.rotate_gt_deg, -360, 360)
    for name, path in (("--pred", arguments.pred), ("--gt", arguments.gt)):
        check_path(name, path)
    from hi3d.evaluation.runs.pairs import score_pair, score_pair_by
    from hi3d.evaluation.tables import markdown_table, write_results

    score = partial(score_pair_by, arguments.protocol) if arguments.protocol else score_pair
    scores, about = score(
        *(arguments.what, arguments.pred, arguments.gt, arguments.config, arguments.overrides),
        arguments.rotate_gt_deg,
    )
    results = {arguments.pred.resolve().name: scores}
    print(markdown_table(results, decimals=4), end="")
    print("\n".join(f"{key}: {about[key]}" for key in ("protocol", "units", "normalization")))
    print("".join(f"note: {note}\n" for note in about.get("notes", [])), end="")
    if arguments.json:
        write_results(arguments.json, results, about)


if __name__ == "__main__":
    run(main)
