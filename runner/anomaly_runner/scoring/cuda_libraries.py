"""The libraries of CUDA that onnxruntime's CUDA provider needs: loading them, and saying which are missing.

The provider (libonnxruntime_providers_cuda.so) names the libraries that it needs, but not where they are: it has no
RPATH, and they lie in wheels of their own (site-packages/nvidia), where the loader does not look. A library that a
process has already loaded is found by its name, so they are loaded by their full paths first.
"""

import ctypes
import io
import logging
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

logger = logging.getLogger(__name__)

DRIVER = "libcuda.so.1"
"""CUDA's driver: in no wheel and in no image, since it belongs to the node's kernel module."""
CUDNN = "libcudnn.so.9"
"""cuDNN, which the provider opens by this name when it starts: the loader does not count it among what it needs."""


def driver_problem() -> str | None:
    """Ask CUDA's driver whether there is a GPU; None if there is.

    The driver is asked, and not the files in /dev: those are others on each platform (nvidiactl on servers, dxg on
    Windows, nvmap on Jetson). Without a driver this takes less than a millisecond; with one, it starts CUDA.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        return f"NVIDIA's driver is not in the container ({error})"
    count = ctypes.c_int()
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code:
        return f"NVIDIA's driver does not start: {_driver_error(driver, code)}"
    return None if count.value else "NVIDIA's driver shows no GPU"


def _driver_error(driver: ctypes.CDLL, code: int) -> str:
    """The driver's own words for an error."""
    text = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(text))
    return f"{text.value.decode() if text.value else 'unknown error'} (CUDA error {code})"


def provider_library() -> Path:
    """The library of onnxruntime's CUDA provider."""
    import onnxruntime

    return Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"


def preload_cuda() -> None:
    """Load the libraries of CUDA and cuDNN that are installed as wheels, and log those that cannot be loaded.

    Takes 0.2 s, and hundreds of megabytes of address space: only for where there is a GPU.
    """
    import onnxruntime

    printed = io.StringIO()
    # It prints what it cannot load, and raises nothing. An empty directory means the wheels first, then the loader's
    # own path.
    with redirect_stdout(printed):
        onnxruntime.preload_dlls(directory="")
    for line in printed.getvalue().splitlines():
        logger.warning("onnxruntime: %s", line)


def missing_libraries() -> dict[str, str]:
    """Names of the libraries that the CUDA provider needs and this process cannot load, with the loader's words.

    To be called after ``preload_cuda``.
    """
    return _cannot_load([*_not_on_path(provider_library()), CUDNN])


def unresolved_libraries(library: Path) -> dict[str, str]:
    """Names of the libraries that ``library`` needs and this process cannot load, with the loader's words.

    The loader is asked twice: a fresh process for all the names that are not on its path, since an error of dlopen
    names the first one alone; then this process, which may have loaded some of them from elsewhere.
    """
    return _cannot_load(_not_on_path(library))


def _cannot_load(names: list[str]) -> dict[str, str]:
    errors = {}
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            errors[name] = str(error)
    return errors


def _not_on_path(library: Path) -> list[str]:
    """Names of needed libraries that a fresh process does not find; glibc's loader lists them and runs nothing."""
    environment = os.environ | {"LD_TRACE_LOADED_OBJECTS": "1", "LD_PRELOAD": str(library)}
    listed = subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True, text=True, check=True)
    return [line.split()[0] for line in listed.stdout.splitlines() if line.endswith("=> not found")]
