"""Encode orbits, or sample stage 1's, once: scripts/cache_latents.py --config FILE --output DIR."""

import os
from pathlib import Path

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.errors import InputError


def main() -> None:
    parser = make_parser(
        "Write the VAE's latents of the training orbits, for latents=DIR of the training.",
        "scripts/cache_latents.py --config configs/stage1.yaml --output data/latents/stage1",
        "hi3d.training.experiment:Stage1Experiment",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the latents")
    parser.add_argument(
        "--stage1-orbits",
        action="store_true",
        help="sample stage 1 instead, for stage1_orbits=DIR of stage 2's training",
    )
    arguments = parse_arguments(parser)
    if arguments.config is None:
        raise InputError("no config given: add --config configs/stage1.yaml")
    from hi3d.progress import console
    from hi3d.training.scaling.cached_training import cache_latents, cache_stage1_orbits
    from hi3d.training.tasks import load_experiment

    experiment = load_experiment(arguments.config, arguments.overrides)
    output = Path(arguments.output)
    if arguments.stage1_orbits:
        count, key = cache_stage1_orbits(experiment, output), "stage1_orbits"
    else:
        count, key = cache_latents(experiment, output), "latents"
    console.print(f"orbits written by this process: {count}", markup=False)
    if os.environ.get("RANK", "0") == "0":
        console.print(f"train with {key}={arguments.output}", markup=False)


if __name__ == "__main__":
    run(main)
