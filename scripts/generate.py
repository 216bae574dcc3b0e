"""Photo or words to textured mesh: scripts/generate.py PHOTO ... --output DIR [key=value ...]."""

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config, peek
from hi3d.errors import InputError


def main() -> None:
    parser = make_parser(
        "Make a textured mesh (GLB), a turntable video and a contact sheet of every photo.",
        "scripts/generate.py data/examples/mailbox_photo.jpg --output outputs seed=0",
        "hi3d.text_to_image.generate:PromptConfig",
    )
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="image of one object")
    parser.add_argument("--prompt", metavar="TEXT", help="draw this in place of a photo")
    parser.add_argument("--prompts", metavar="FILE", help="draw these, one prompt a line")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    arguments = parse_arguments(parser)
    given = [bool(arguments.photos), arguments.prompt is not None, arguments.prompts is not None]
    if sum(given) != 1:
        parser.error("give PHOTO, --prompt TEXT or --prompts FILE, one of the three")
    from hi3d.pipelines.image_to_3d import DEFAULT_CONFIG, GenerateConfig

    config_file = arguments.config or DEFAULT_CONFIG
    if arguments.photos:
        for key in ("text_to_image", "drawing"):
            if peek(config_file, key, arguments.overrides) is not None:
                raise InputError(
                    f"{key} draws words, and photos are given: leave it out, or give --prompt TEXT "
                    "in place of the photos"
                )
        from hi3d.pipelines.many.generate import generate

        config = load_config(GenerateConfig, config_file, arguments.overrides)
        generate(arguments.photos, arguments.output, config)
        return
    from hi3d.text_to_image.generate import PromptConfig, generate_from_words, read_prompts

    prompts = [arguments.prompt] if arguments.prompts is None else read_prompts(arguments.prompts)
    words = load_config(PromptConfig, config_file, arguments.overrides)
    generate_from_words(prompts, arguments.output, words)


if __name__ == "__main__":
    run(main)
