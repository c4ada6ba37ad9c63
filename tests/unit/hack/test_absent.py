"""What a test lacks is a skip for whoever runs a part of the tests, and a failure under `make test`."""

import re
from pathlib import Path

import pytest

from support.absent import VARIABLE, absent, needs

MAKEFILE = (Path(__file__).parents[3] / "Makefile").read_text()


def test_what_is_absent_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no cluster"):
        absent("no cluster")
    assert needs(False, "no server").args == (True,)
    assert needs(True, "no server").args == (False,)


def test_what_is_absent_fails_where_all_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(pytest.fail.Exception, match="no cluster"):
        absent("no cluster")
    assert needs(False, "no server").args == (False,)


@pytest.mark.parametrize("target", ["test", "test-all", "test-integration", "test-e2e"])
def test_make_needs_all(target: str) -> None:
    found = re.search(rf"^{target}:.*\n\t(.*)", MAKEFILE, re.MULTILINE)
    assert found
    assert "$(NEED_ALL) $(" in found[1]
    assert f"NEED_ALL := {VARIABLE}=1" in MAKEFILE
