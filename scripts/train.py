"""Train a stage or one of the small networks: scripts/train.py --config FILE [key=value ...]."""

import sys

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.errors import InputError


def main() -> None:
    parser = make_parser(
        "Train one network from a config; resume=last goes on from the last checkpoint.",
        "scripts/train.py --config configs/nano/stage1.yaml trainer.max_steps=100",
        "hi3d.training.experiment:Experiment",
    )
    arguments = parse_arguments(parser)
    if arguments.config is None:
        raise InputError("no config given: add --config configs/nano/stage1.yaml")
    from hi3d.nano.tasks import ALL_TASKS
    from hi3d.training.interruption import NonFiniteError
    from hi3d.training.tasks import load_experiment
    from hi3d.training.trainer import train

    try:
        train(load_experiment(arguments.config, arguments.overrides, ALL_TASKS), ALL_TASKS)
    except NonFiniteError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run(main)
