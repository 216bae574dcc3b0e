"""Words of a command: settings, and files whose names look like settings or options."""

import pytest

from hi3d.command_line import make_parser, parse_arguments


@pytest.fixture
def parser():
    parser = make_parser("Do it.", "scripts/do.py cup.jpg --output out")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--output", required=True)
    return parser


def test_settings_stand_anywhere(parser):
    words = ["seed=1", "cup.jpg", "--output", "out", "orbit.sigma_max=80", "--quiet"]
    arguments = parse_arguments(parser, words)
    assert arguments.overrides == ["seed=1", "orbit.sigma_max=80"]
    assert (arguments.photos, arguments.output) == (["cup.jpg"], "out")


def test_a_file_is_a_file_whatever_its_name(parser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cup_v=2.jpg", "-dash.jpg"):
        (tmp_path / name).touch()
    arguments = parse_arguments(parser, ["cup_v=2.jpg", "-dash.jpg", "--output", "out", "seed=1"])
    assert sorted(arguments.photos) == ["./-dash.jpg", "cup_v=2.jpg"]
    assert arguments.overrides == ["seed=1"]
    assert parse_arguments(parser, ["-dash.jpg", "--output", "o"]).photos == ["./-dash.jpg"]


def test_after_two_dashes_there_are_only_names(parser):
    arguments = parse_arguments(parser, ["--output", "o", "seed=1", "--", "-x.jpg", "a=b.jpg"])
    assert arguments.photos == ["./-x.jpg", "a=b.jpg"]
    assert arguments.overrides == ["seed=1"]


def test_unknown_option_is_an_error(parser, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(parser, ["cup.jpg", "--output", "o", "--sed"])
    assert stop.value.code == 2
    assert "--sed" in capsys.readouterr().err


def test_help_of_the_command_shows_the_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["hi3d render-orbits"])
    text = make_parser("Do it.", "scripts/render_orbits.py cup.glb").format_help()
    assert "usage: hi3d render-orbits" in text
    assert "Example:\n  hi3d render-orbits cup.glb" in text
