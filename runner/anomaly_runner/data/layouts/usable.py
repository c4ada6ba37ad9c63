"""Image files that a run can use, and those that it refuses by their name or size, without opening them."""

import posixpath
from collections.abc import Callable, Iterable

from anomaly_api.run import UnreadableImage
from anomaly_runner.storage.store import ObjectInfo, is_safe_key


def usable_images(
    objects: Iterable[ObjectInfo], max_bytes: int | None, is_used: Callable[[str], bool]
) -> tuple[list[str], tuple[UnreadableImage, ...]]:
    """Keys of image files, sorted, and the files that are refused without opening them.

    Args:
        objects: image files.
        max_bytes: size of the largest possible image file; None for any.
        is_used: whether the run would use a key. A refused file is reported only if the run would have used its key, or
            the path that its key leads to.
    """
    images = {info.key: info for info in objects}
    problems = {key: _problem(info, max_bytes) for key, info in images.items()}
    refused = tuple(
        UnreadableImage(path=printable_key(key), problem=why)
        for key, why in sorted(problems.items())
        if why and is_used(_resolved(key))
    )
    return sorted(key for key, why in problems.items() if not why), refused


def _resolved(key: str) -> str:
    """The path that a key leads to."""
    return posixpath.normpath(key)


def printable_key(key: str) -> str:
    """The key with non-UTF-8 bytes as hexadecimal codes, so that it can be written to tables and reports."""
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _problem(info: ObjectInfo, max_bytes: int | None) -> str:
    """The reason for refusing a file without opening it; empty if it is accepted."""
    if printable_key(info.key) != info.key:
        return "its key is not UTF-8, as S3 asks for: it cannot be requested"
    if not is_safe_key(info.key):
        return "its key leads out of the folder"
    if max_bytes is not None and info.size > max_bytes:
        return f"{info.size} bytes are more than an image of maxImagePixels can have"
    return ""
