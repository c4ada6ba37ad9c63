"""Files of weights that are cut off, or something else, such as a page that says why there was no download."""

import errno
import pickle
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from anomaly_runner.errors import WeightsNotFound

_BROKEN = (SafetensorError, pickle.UnpicklingError, EOFError, struct.error)
_SIGNS = ("PytorchStreamReader", "unexpected EOF", "legacy .tar format", "mmap can only be used with")
"""In torch's own words about a zip archive and a plain pickle that were cut off, and about what is neither."""


def is_damage(error: BaseException) -> bool:
    """Whether torch or safetensors say by this that a file is damaged; not that it is missing, or memory short."""
    if isinstance(error, OSError):
        return error.errno == errno.EINVAL  # a short archive's end is looked for before its beginning
    return isinstance(error, _BROKEN) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


@contextmanager
def undamaged(weights: Callable[[], str]) -> Iterator[None]:
    """Loads them within this block.

    Args:
        weights: their names, asked for when there is something to say.

    Raises:
        WeightsNotFound: they are damaged.
    """
    try:
        yield
    except Exception as error:
        if not is_damage(error):
            raise
        raise WeightsNotFound(f"the weights {weights()} are damaged: fill the cache again") from error
