"""Files of weights that are cut off, or something else, such as a page that says why there was no download.

Libraries tell of them in many ways; here each becomes one error that names the files and says what to do.
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
"""Parts of torch's messages about a zip archive and a plain pickle that were cut off, and about what is neither."""


def is_damaged_file(error: BaseException) -> bool:
    """Whether torch or safetensors say by this that a file is damaged; not that it is missing, or memory short."""
    if isinstance(error, OSError):
        return error.errno == errno.EINVAL  # torch seeks the end of a short archive before its beginning
    if isinstance(error, RuntimeError):
        return any(message in str(error) for message in _TORCH_MESSAGES)
    return isinstance(error, _UNREADABLE)


@contextmanager
def naming_damaged_weights(names: Callable[[], str]) -> Iterator[None]:
    """Weights are loaded within this block, or the function that it decorates.

    Args:
        names: what is loaded, for people; asked for when it is damaged.

    Raises:
        WeightsNotFound: a file is damaged.
    """
    try:
        yield
    except Exception as error:
        if not is_damaged_file(error):
            raise
        raise WeightsNotFound(f"the weights {names()} are damaged: fill the cache again") from error
