"""Do without torch's compiler, which takes as long as torch itself to import, until something wants to compile.

torchvision asks the compiler whether an operator can be compiled; timm, and torch itself on the meta device, mark
functions that must not be. That imports it, and no run compiles anything with it. So inside of the block
``torch._dynamo`` and ``torch._dynamo.utils`` are stand-ins, which leave these two questions for later and have
everything else from the real modules. A training in one pass never needs them, which saves it 2.3 s of CPU time and
140 MB.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER, _UTILS = "torch._dynamo", "torch._dynamo.utils"


class _StandIn(ModuleType):
    """A module that has a few functions, and everything else from the real module of its name."""

    def __init__(self, name: str, **known: Callable[..., Any]) -> None:
        super().__init__(name)
        self.__dict__.update(known)

    def __getattr__(self, attribute: str) -> Any:
        is_wanted = (self.__name__, attribute) == (_COMPILER, "__path__") or not attribute.startswith("__")
        if not is_wanted:  # ``inspect`` asks every module for its file, and imports ask whether it is a package
            raise AttributeError(attribute)
        return getattr(_real(self.__name__), attribute)


@contextmanager
def lazy_compiler() -> Iterator[None]:
    """Have what is inside of the block get stand-ins for torch's compiler, unless it was imported before."""
    if _COMPILER not in sys.modules:
        sys.modules[_COMPILER] = _StandIn(_COMPILER, disable=_disable)
        sys.modules[_UTILS] = _StandIn(_UTILS, is_compile_supported=_is_compile_supported)
    try:
        yield
    finally:
        _remove_stand_ins()


def _real(name: str) -> ModuleType:
    _remove_stand_ins()
    return importlib.import_module(name)


def _remove_stand_ins() -> None:
    for name in (_UTILS, _COMPILER):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _disable(function: Callable[..., Any] | None = None, recursive: bool = True, **options: Any) -> Any:
    """``torch.compiler.disable``: as long as there is no compiler, nothing is being compiled."""
    if function is None:
        return functools.partial(_disable, recursive=recursive, **options)
    disabled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal disabled
        compiler = sys.modules.get(_COMPILER)
        if disabled is None and isinstance(compiler, ModuleType) and not isinstance(compiler, _StandIn):
            disabled = compiler.disable(function, recursive, **options)
        return (disabled or function)(*arguments, **named)

    return call


def _is_compile_supported(device_type: str) -> bool:
    supported: bool = _real(_UTILS).is_compile_supported(device_type)
    return supported
