"""Names for targets that do not take every name, changed so that they can be read back and no two become one.

Linux takes every byte but "/" and NUL in a name, and S3 any text of 1,024 bytes. A character that a target refuses is
written as ``_UHHHH_``, its Unicode code point in hexadecimal (":" as ``_U003A_``). Only characters that every target
takes are used for that, and a name that has such a code already gets its underscore written as one, so ``unescape``
returns the name. A name that is too long keeps its beginning and gets a digest of the whole name at its end; it cannot
be read back, so its whole form has to be kept elsewhere. Names that differ only in case, or only in their Unicode
normal form, stay different.
"""

import hashlib
import re
from collections.abc import Callable

MAX_NAME_BYTES = 255
"""Longest name of a file or folder that file systems allow."""
_REFUSED_IN_FILES = re.compile(r'[\x00-\x1f\x7f-\x9f"#%*/:<>?\\|\u2028\u2029\ud800-\udfff]')
"""Characters that one of the targets of artifacts refuses or changes.

MLflow's client does not quote ``#%?`` in URLs, XML and so listings of S3 cannot hold control characters, and people
download artifacts to Windows, which refuses ``"*:<>?\\|``.
"""
_CODE = re.compile(r"_U([0-9A-F]{4,6})_")
_CODE_BEGINS = r"_(?=U[0-9A-F]{4})"
_DIGEST_CHARACTERS = 16
_DIGEST_AT_END = re.compile(rf"-[0-9a-f]{{{_DIGEST_CHARACTERS}}}$")
_LONGEST_CHARACTER = 4
"""Bytes of UTF-8 that a character takes at most: a shortened name is that much shorter than its limit, or less."""


def byte_length(name: str) -> int:
    """Length of a name as UTF-8, in bytes."""
    return len(name.encode(errors="surrogatepass"))


def escape(name: str, refused: re.Pattern[str]) -> str:
    """Write each refused character as ``_UHHHH_``; ``unescape`` returns the name.

    Args:
        name: any text.
        refused: matches one character that the target refuses; never one of ``_``, ``U``, digits and ``A`` to ``F``.
    """
    return re.sub(rf"{refused.pattern}|{_CODE_BEGINS}", lambda found: f"_U{ord(found[0]):04X}_", name)


def unescape(name: str) -> str:
    """Return the name that ``escape`` was given."""
    return _CODE.sub(lambda found: chr(int(found[1], 16)), name)


def shorten(name: str, limit: int, length: Callable[[str], int] = byte_length) -> str:
    """Return the name if it is not longer than the limit, or else its beginning and a digest of all of it.

    A short name that looks like a shortened one gets a digest too, so that no other name becomes it.

    Args:
        name: any text without unpaired surrogates.
        limit: at least 32.
        length: measures a name.
    """
    looks_shortened = length(name) > limit - _LONGEST_CHARACTER and _DIGEST_AT_END.search(name)
    if length(name) <= limit and not looks_shortened:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    kept = name[:limit]
    while length(kept) > limit - _DIGEST_CHARACTERS - 1:
        kept = kept[:-1]
    return f"{kept}-{digest}"


def file_name(name: str, limit: int = MAX_NAME_BYTES) -> str:
    """The name as a part of a path, an object's key and a URL: escaped, and at most ``limit`` bytes long."""
    return shorten(escape(name, _REFUSED_IN_FILES), limit)
