"""Train the small model: objects in, the folders that generate.py takes out."""

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.errors import InputError


def main() -> None:
    parser = make_parser(
        "Render orbits, train every part of the small model and write it in half precision. The "
        "same command goes on after an interruption. A setting holds for all trainings, or, after "
        "the name of a part (vae, image_encoder, depth, grid_predictor, stage1, stage2, orbits), "
        "for that part alone.",
        "scripts/train_small_model.py OBJECTS --val-objects OTHER_OBJECTS --output outputs/nano "
        "grid_predictor.trainer.max_steps=4000",
    )
    parser.add_argument("objects", metavar="OBJECTS", help="as of render_orbits.py")
    parser.add_argument("--val-objects", metavar="OBJECTS", required=True, help="others, to check")
    parser.add_argument("--output", metavar="DIR", required=True, help="of all parts and the model")
    parser.add_argument(
        "--cross-fit",
        action="store_true",
        help="stage 2 learns from predictors that have not seen the object (two more trainings)",
    )
    arguments = parse_arguments(parser)
    if arguments.config is not None:
        raise InputError(
            f"--config {arguments.config}: each part has its own in configs/nano, give key=value"
        )
    from hi3d.nano.recipe import Recipe, train_small_model

    train_small_model(
        Recipe(
            arguments.objects,
            arguments.val_objects,
            arguments.output,
            arguments.cross_fit,
            tuple(arguments.overrides),
        )
    )


if __name__ == "__main__":
    run(main)
