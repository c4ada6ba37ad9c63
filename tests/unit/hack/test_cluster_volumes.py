"""The embedded cluster's persistent volumes, and the demo's use of claims."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hack.cluster import settings, volumes
from hack.demo import install


@pytest.fixture
def ensure_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[dict[str, Any]]], list[tuple[str, ...]]]:
    """Function that runs `ensure` with existing volumes, and returns the kubectl commands that change something."""
    monkeypatch.setattr(settings, "RUN", tmp_path)

    def ensure(existing: list[dict[str, Any]]) -> list[tuple[str, ...]]:
        made: list[tuple[str, ...]] = []

        def kubectl(*arguments: str, stdin: str | None = None) -> str:
            if arguments[0] != "get":
                made.append(arguments)
            return json.dumps({"items": existing})

        monkeypatch.setattr(volumes, "kubectl", kubectl)
        volumes.ensure()
        return made

    return ensure


def volume(name: str, phase: str, *, claimed: bool) -> dict[str, Any]:
    spec = {"claimRef": {"name": "s3"}} if claimed else {}
    return {"metadata": {"name": name}, "spec": spec, "status": {"phase": phase}}


def test_only_volumes_without_a_claim_are_emptied(
    tmp_path: Path, ensure_volumes: Callable[[list[dict[str, Any]]], list[tuple[str, ...]]]
) -> None:
    for name in volumes.NAMES:
        (tmp_path / "volumes" / name / "bucket").mkdir(parents=True)
        (tmp_path / "volumes" / name / "link").symlink_to("/")
    existing = [
        volume("volume-0", "Bound", claimed=True),
        volume("volume-1", "Available", claimed=True),
        volume("volume-2", "Released", claimed=True),
        volume("volume-3", "Available", claimed=False),
    ]
    commands = ensure_volumes(existing)
    filled = {folder.name for folder in (tmp_path / "volumes").iterdir() if any(folder.iterdir())}
    assert filled == {"volume-0", "volume-1"}
    assert [command[:3] for command in commands if command[0] == "patch"] == [("patch", "persistentvolume", "volume-2")]
    assert commands[-1][0] == "apply"


def test_folders_are_made(
    tmp_path: Path, ensure_volumes: Callable[[list[dict[str, Any]]], list[tuple[str, ...]]]
) -> None:
    assert [command[0] for command in ensure_volumes([])] == ["apply"]
    assert {folder.name for folder in (tmp_path / "volumes").iterdir()} == set(volumes.NAMES)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ([], False),
        ([None], False),
        ([{}, {install.DEFAULT_CLASS: "false"}], False),
        ([{}, {install.DEFAULT_CLASS: "true"}], True),
    ],
)
def test_a_default_class(
    annotations: list[dict[str, str] | None], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = [{"name": "some"} if found is None else {"name": "some", "annotations": found} for found in annotations]
    answer = json.dumps({"items": [{"metadata": found} for found in metadata]})
    monkeypatch.setattr(install, "kubectl", lambda *_: answer)
    assert install.has_default_storage() is expected
