"""Fixtures of the runner's tests."""

from pathlib import Path

import pytest

from support.textures import write_textures


@pytest.fixture
def textures(tmp_path: Path) -> Path:
    """A local folder with the bucket ``data`` and the textures in it."""
    write_textures(tmp_path / "data" / "textures")
    return tmp_path
