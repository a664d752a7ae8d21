"""Hold what a file says against the form that its readers rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from medseg.errors import DataError

__all__ = ["as_formed"]

T = TypeVar("T")
_NAMES = {
    dict: "a mapping",
    list: "a list",
    str: "a string",
    float: "a number",
    int: "an integer",
    bool: "true or false",
}


def as_formed(content: T, form: Any, wrong: str, remedy: str) -> T:
    """``content`` itself, if it has the form.

    Args:
        content: plain values.
        form: a type (``float`` takes integers too), ``None`` for null, a tuple of alternatives, ``[form]`` for a list
            of it, ``{str: form}`` for a mapping of any keys to it, or ``{"key": form}``; a key that may be missing ends
            with ``?``, others are free.
        wrong: begins the sentence: what is wrong.
        remedy: ends it: what was expected, what to do.

    Raises:
        DataError: another form, with the place.
    """
    problem = _problem(content, form, "")
    if problem:
        raise DataError(f"{wrong} ({problem}); {remedy}.")
    return content


def _problem(value: Any, form: Any, place: str) -> str:
    if isinstance(form, tuple):
        problems = [_problem(value, one, place) for one in form]
        return "" if "" in problems else problems[0]
    kind = form if isinstance(form, type) or form is None else type(form)
    if not _is(value, kind):
        shown = "null" if value is None else _NAMES.get(type(value), type(value).__name__)
        return f"{place or 'the content'} is {shown} instead of {_NAMES[kind] if kind else 'null'}"
    if isinstance(form, list):
        items = [(str(number), item, form[0]) for number, item in enumerate(value)]
    elif isinstance(form, Mapping) and str in form:
        items = [(str(key), item, form[str]) for key, item in value.items()]
    else:
        items = []
        for key, below in form.items() if isinstance(form, Mapping) else ():
            name = key.removesuffix("?")
            if name in value:
                items.append((name, value[name], below))
            elif name == key:
                return f"'{f'{place}::{key}' if place else key}' is missing"
    found = (_problem(item, below, f"{place}::{name}" if place else name) for name, item, below in items)
    return next(filter(None, found), "")


def _is(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if isinstance(value, bool) and kind is not bool:
        return kind is object
    return isinstance(value, (int, float) if kind is float else kind)
