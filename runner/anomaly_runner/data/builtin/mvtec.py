"""Extract one category of MVTec AD from its archive, whose folders already have the layout that runs expect.

The archive is untrusted: members are read one by one, and only regular files whose paths stay below the category's
folder are written, without the archive's modes, owners and links.
"""

import lzma
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import is_safe_key

_MAX_CATEGORY_BYTES = 20 << 30
"""Limit of a category's size, against hostile archives: MVTec AD's largest category has less than 1 GB."""
_MAX_FILES = 100_000


def extract(archive: Path, category: str, folder: Path, check: Callable[[], None]) -> None:
    """Extract a category to ``folder/category``.

    Args:
        archive: a tar file with any compression.
        category: name of a top folder in the archive.
        folder: target folder.
        check: called between members; may raise to stop.

    Raises:
        DataInvalid: the archive is damaged, hostile or far too large, or has no such category.
    """
    categories: set[str] = set()
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in _members(tar, category, categories):
                check()
                _write(tar, member, folder / member.name)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DataInvalid(f"{archive.name} cannot be unpacked: {error}") from error
    if category not in categories:
        raise DataInvalid(
            f"there is no category {category} in {archive.name}; it holds {', '.join(sorted(categories))}"
        )


def keep_first(folder: Path, limit: int) -> None:
    """Remove all but the first ``limit`` images, by name, of each folder of train/ and test/."""
    for label in (*folder.glob("train/*"), *folder.glob("test/*")):
        for file in sorted(label.iterdir())[limit:]:
            file.unlink()


def _members(tar: tarfile.TarFile, category: str, categories: set[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a category, and add the names of all categories to ``categories``.

    Raises:
        DataInvalid: the archive is hostile or far too large.
    """
    size, count = 0, 0
    for member in tar:
        if not is_safe_key(member.name):
            raise DataInvalid(f"refused the archive: its member {member.name!r} leads out of the folder")
        top_folder, slash, _ = member.name.partition("/")
        if slash and member.isfile():
            categories.add(top_folder)
        if top_folder != category or member.isdir():
            continue
        if not member.isfile():
            raise DataInvalid(f"refused the archive: its member {member.name!r} is a link or a device")
        size, count = size + member.size, count + 1
        if size > _MAX_CATEGORY_BYTES or count > _MAX_FILES:
            raise DataInvalid(f"refused the archive: {category} takes more than {size} bytes or {count} files")
        yield member


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise DataInvalid(f"refused the archive: its member {member.name!r} is no file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
