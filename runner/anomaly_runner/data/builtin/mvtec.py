"""One product of MVTec AD out of its archive, whose folders are laid out as ours are.

An archive is hostile until proven otherwise: members are read one by one and only regular files with names that stay
below the product's folder are written, by us, with none of the archive's modes, owners or links.
"""

import lzma
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import is_safe_key

_LARGEST_PRODUCT = 20 << 30
"""Bytes; the largest product of MVTec AD has less than 1 GB."""
_MOST_FILES = 100_000


def extract(archive: Path, category: str, folder: Path, check: Callable[[], None]) -> None:
    """Write the product's folder, ``folder/category``.

    Args:
        archive: a tar file, compressed in any way.
        category: the product.
        folder: where it goes.
        check: called between members; may raise to stop.

    Raises:
        DataInvalid: the archive is damaged, hostile or far too large, or has no such product.
    """
    products: set[str] = set()
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in _members(tar, category, products):
                check()
                _write(tar, member, folder / member.name)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DataInvalid(f"{archive.name} cannot be unpacked: {error}") from error
    if category not in products:
        raise DataInvalid(f"there is no category {category} in {archive.name}; it holds {', '.join(sorted(products))}")


def keep_first(folder: Path, limit: int) -> None:
    """Remove all but the first pictures, by name, of each folder of train/ and test/."""
    for label in (*folder.glob("train/*"), *folder.glob("test/*")):
        for file in sorted(label.iterdir())[limit:]:
            file.unlink()


def _members(tar: tarfile.TarFile, category: str, products: set[str]) -> Iterator[tarfile.TarInfo]:
    """Files of the product; ``products`` fills with the names of all."""
    size, count = 0, 0
    for member in tar:
        if not is_safe_key(member.name):
            raise DataInvalid(f"refused the archive: its member {member.name!r} leads out of the folder")
        product, slash, _ = member.name.partition("/")
        if slash and member.isfile():
            products.add(product)
        if product != category or member.isdir():
            continue
        if not member.isfile():
            raise DataInvalid(f"refused the archive: its member {member.name!r} is a link or a device")
        size, count = size + member.size, count + 1
        if size > _LARGEST_PRODUCT or count > _MOST_FILES:
            raise DataInvalid(f"refused the archive: {category} takes more than {size} bytes or {count} files")
        yield member


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
