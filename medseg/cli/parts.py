"""Data sets and challenges add options of their own to a command: the keyword arguments of one of their functions."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medseg.cli.options import Option, described

__all__ = ["Parts", "describe_options"]


@dataclass(frozen=True)
class Parts:
    """Modules that add options of their own to a command: data sets, challenges.

    Attributes:
        word: what one is called.
        names: dotted path of two functions: with ``_module`` it gives a module by its name, with ``s`` all names.
        function: name of the module's function whose keyword arguments are options.
        show: prints what ``--list`` says of a module.
        needs: template of a module's ``facts``: what is said where a required option is missing.
    """

    word: str
    names: str
    function: str
    show: Callable[[str, Any], None]
    needs: str

    @property
    def about(self) -> str:
        """Help of ``--list``."""
        return f"show the known {self.word}s, or all about one"

    def module(self, name: str) -> Any:
        """The module of this name.

        Raises:
            ConfigError: there is none.
        """
        return self._function("_module")(name)

    def options(self, module: Any) -> list[Option]:
        """The module's own options."""
        return _options(getattr(module, self.function))

    def show_all(self, name: str | None) -> None:
        """Print what is known of one module, or of all."""
        for each in [name] if name else self._function("s")():
            self.show(each, self.module(each))

    def _function(self, ending: str) -> Callable[..., Any]:
        package, _, name = self.names.rpartition(".")
        found: Callable[..., Any] = getattr(importlib.import_module(package), name + ending)
        return found


def _options(function: Callable[..., Any]) -> list[Option]:
    """The keyword-only arguments with a default."""
    said = described(inspect.getdoc(function), "Args:\n")
    return [
        Option(
            p.name, "Names" if isinstance(p.default, (tuple, list)) else p.annotation, p.default, said.get(p.name, "")
        )
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
    ]


def describe_options(function: Callable[..., Any]) -> str:
    """``--task 1, --num_folds 0, --no-crop``: each with its default, a switch as it is turned."""
    return ", ".join(map(_shown, _options(function)))


def _shown(option: Option) -> str:
    return f"--{'no-' if option.default is True else ''}{option.name} {option.shown}".rstrip()
