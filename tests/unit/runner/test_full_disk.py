"""A full disk is told as one, in whatever words, and by nothing else.

The words are those of the libraries on a file system of 2 MB.
"""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from anomaly_runner.errors import StorageUnavailable
from anomaly_runner.system.full_disk import check_room, full_disk, is_full_disk


class SafetensorError(Exception):
    """An error with the name of safetensors'."""


FULL: dict[str, Exception] = {
    "python": OSError(errno.ENOSPC, "No space left on device", "/work/report.json"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "size of a file": OSError(errno.EFBIG, "File too large"),
    "pyarrow": OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device"),
    "pyarrow without a number": OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"),
    "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "quota in safetensors": SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"),
    "OpenVINO": RuntimeError("basic_ios::clear: iostream error"),
}
OTHERS: dict[str, Exception] = {
    "permission": PermissionError(errno.EACCES, "Permission denied"),
    "words in a name": FileNotFoundError(errno.ENOENT, "No such file", "/work/No space left on device"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:143] . failed finding central directory"),
    "shapes": RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_full_disk_is_recognised_and_told_with_what_to_do(error: Exception) -> None:
    assert is_full_disk(error)
    told = full_disk(error)
    assert isinstance(told, StorageUnavailable)
    assert "ask for more ephemeral-storage in scheduling.resources.requests" in str(told)
    assert str(error) in str(told)


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_other_failures_are_no_full_disk(error: Exception) -> None:
    assert not is_full_disk(error)


def test_what_follows_from_a_full_disk_is_told_by_it() -> None:
    wrapped, cleanup = ValueError("cannot export"), KeyError("a cleanup that fails")
    wrapped.__cause__ = cleanup
    cleanup.__context__ = FULL["python"]
    assert "report.json" in str(full_disk(wrapped))


def test_long_words_of_a_library_are_cut() -> None:
    told = str(full_disk(RuntimeError("No space left on device" + "x" * 5000)))
    assert len(told) < 450


def test_what_does_not_fit_is_refused_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Path]()

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(total=10**9, used=0, free=250_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    check_room(tmp_path, 250_000_000)
    with pytest.raises(StorageUnavailable, match=r"0\.26 GB are to be written to a disk that has 0\.25 GB free: ask"):
        check_room(tmp_path, 260_000_000)
    assert asked == [tmp_path, tmp_path]
