"""Start-up: what MONAI's packages import on behalf of features that a command may never use is loaded when it is used.

``import monai`` loads every module of MONAI and of ignite, and these packages with them, which take about half
of the time and a third of the memory of a command's start:

* ``torch.distributed.optim``, with FSDP and sympy, for one ``isinstance`` of ignite's checkpoint handler,
* ``scipy.signal``, with ``scipy.stats``, for two functions, and ``tifffile`` for one class,
* ``matplotlib`` and its ``pyplot``, for plots.

While monai is imported, stand-ins are in their places, and nowhere afterwards: whoever imports one of them later gets
the real one, and so does whoever uses a name that MONAI took from a stand-in.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

__all__ = ["import_monai_lean", "imports_uncollected"]


@contextlib.contextmanager
def imports_uncollected() -> Iterator[None]:
    """Where torch is imported within, no garbage collection until then, nor of what came to be there: imports make a
    million objects, which all stay, and looking through them takes a seventh of a command's start.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_monai_lean() -> None:
    """Make the first ``import monai`` of this process, whoever makes it, a lean one."""
    if "monai" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds monai itself, once, and lets it be loaded among the stand-ins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "monai":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module
            spec.loader.exec_module = functools.partial(_among_stand_ins, load)  # type: ignore[method-assign]
        return spec


def _among_stand_ins(load: Any, module: ModuleType) -> None:
    importlib.import_module("torch.distributed")  # the parent of a stand-in
    stand_ins: dict[str, type[ModuleType]] = {"torch.distributed.optim": _Optimizers, "scipy.signal": _Functions}
    stand_ins |= {"tifffile": _Functions, "matplotlib": _Package, "matplotlib.pyplot": _Module}
    placed = {name: kind(name) for name, kind in stand_ins.items() if name not in sys.modules}
    sys.modules.update(placed)
    if "matplotlib" in placed and "matplotlib.pyplot" in placed:
        vars(placed["matplotlib"])["pyplot"] = placed["matplotlib.pyplot"]
    try:
        load(module)
    finally:
        for name, stand_in in placed.items():
            _remove(name, stand_in)


def _remove(name: str, stand_in: ModuleType) -> None:
    if sys.modules.get(name) is stand_in:
        del sys.modules[name]
    parent, _, child = name.rpartition(".")
    if vars(sys.modules.get(parent, stand_in)).get(child) is stand_in:
        delattr(sys.modules[parent], child)


class _Module(ModuleType):
    """A module that is loaded when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for its own names, and does without them
            raise AttributeError(name)
        return getattr(_real(self), name)


class _Package(_Module):
    """A package that is loaded when a module of it is looked for which has no stand-in."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        spec = importlib.util.find_spec(name)
        self.__file__ = spec.origin if spec is not None else None

    def __getattr__(self, name: str) -> Any:
        return getattr(_real(self), name) if name == "__path__" else super().__getattr__(name)


class _Functions(ModuleType):
    """A module of functions and classes, each of which is imported when it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: getattr(_real(self), name)(*args, **kwargs)


class _Optimizers(ModuleType):
    """``torch.distributed.optim`` for ignite, which asks of each object whether it is a ``ZeroRedundancyOptimizer``."""

    ZeroRedundancyOptimizer: type

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ZeroRedundancyOptimizer = _SameClass("ZeroRedundancyOptimizer", (), {})


class _SameClass(type):
    """A class whose instances are those of the real one, of which there are none before its module was imported."""

    def __instancecheck__(cls, instance: object) -> bool:
        real = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
        return real is not None and isinstance(instance, real.ZeroRedundancyOptimizer)


def _real(stand_in: ModuleType) -> ModuleType:
    _remove(stand_in.__name__, stand_in)
    return importlib.import_module(stand_in.__name__)
