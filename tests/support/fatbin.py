"""The GPUs that a library has code for, read from its fat binaries, as ``cuobjdump --list-elf`` lists them."""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<IHHQ")
"""Of a fat binary: magic number, version, size of this header, size of the entries that follow."""
_ENTRY = struct.Struct("<HHIQ8xII")
"""Of an entry: kind, version, size of this header, size of the code; then the compute capability, times ten."""
_START = struct.pack("<IHH", 0xBA55ED50, 1, _HEADER.size)
_ELF = 2
"""The kind of machine code; 1 is PTX."""


def compute_capabilities(library: Path) -> list[tuple[int, int]]:
    """Compute capabilities that a library has machine code for, lowest first.

    Raises:
        AssertionError: the library has PTX as well, which a driver compiles for any later GPU.
    """
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = set(_entries(content))
    assert {kind for kind, _ in found} == {_ELF}
    return sorted(divmod(capability, 10) for _, capability in found)


def _entries(content: mmap.mmap) -> Iterator[tuple[int, int]]:
    start = content.find(_START)
    while start != -1:
        at = start + _HEADER.size
        end = at + _HEADER.unpack_from(content, start)[-1]
        while at < end:
            kind, _, header, size, _, capability = _ENTRY.unpack_from(content, at)
            yield kind, capability
            at += header + size
        start = content.find(_START, end)
