"""Detect files of weights that are truncated or are no weights at all, such as an HTML error page of a download.

Libraries raise many different exceptions for these; here each becomes one that names the files and says what to do.
"""

import errno
import pickle
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from anomaly_runner.errors import WeightsNotFound

_UNREADABLE = (SafetensorError, pickle.UnpicklingError, EOFError, struct.error)
_TORCH_MESSAGES = ("PytorchStreamReader", "unexpected EOF", "legacy .tar format", "mmap can only be used with")
"""Parts of torch's messages about truncated zip archives and pickles, and about files that are neither."""


def is_damaged_file(error: BaseException) -> bool:
    """Whether an exception of torch or safetensors means a damaged file, not a missing file or a lack of memory."""
    if isinstance(error, OSError):
        return error.errno == errno.EINVAL  # torch seeks to a negative position in a short archive
    if isinstance(error, RuntimeError):
        return any(message in str(error) for message in _TORCH_MESSAGES)
    return isinstance(error, _UNREADABLE)


@contextmanager
def naming_damaged_weights(names: Callable[[], str]) -> Iterator[None]:
    """Raise WeightsNotFound for damaged files that are loaded inside this block, or in the decorated function.

    Args:
        names: returns the names of the files or repositories, for the message.

    Raises:
        WeightsNotFound: a file is damaged.
    """
    try:
        yield
    except Exception as error:
        if not is_damaged_file(error):
            raise
        raise WeightsNotFound(f"the weights {names()} are damaged: fill the cache again") from error
