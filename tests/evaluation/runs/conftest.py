"""Runs over sets are tested without LPIPS, by small views and with a cache of their own."""

from dataclasses import replace
from pathlib import Path

import pytest

from hi3d.evaluation.protocols.protocol import PROTOCOLS, SYNCDREAMER
from hi3d.evaluation.runs import scoring


@pytest.fixture
def small_protocol(tmp_path, monkeypatch) -> Path:
    """Makes the protocol `small` of views of 32 x 32, and gives the test's folder."""
    monkeypatch.setattr("hi3d.images.lpips.packaged_file", lambda network: None)
    scoring.lpips_of.cache_clear()
    monkeypatch.setitem(PROTOCOLS, "small", replace(SYNCDREAMER, name="small", view_size=32))
    monkeypatch.setenv("HI3D_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path
