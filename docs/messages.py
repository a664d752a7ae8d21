"""Every sentence that the code says of bad input, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from medseg import errors

PACKAGE = Path(errors.__file__).parent
_STATUS = {name: cls.status for name in errors.__all__ if hasattr(cls := getattr(errors, name), "status")}
_LEAST = 3  # words of a sentence that is worth listing


def messages() -> dict[int, list[str]]:
    """Exit status -> the sentences, with ``…`` for what is filled in."""
    found: dict[int, set[str]] = {status: set() for status in sorted(set(_STATUS.values()))}
    for call in _calls():
        if isinstance(call.func, ast.Name) and call.func.id in _STATUS and call.args:
            found[_STATUS[call.func.id]].add(sentence(call.args[0]))
    return {status: sorted(filter(_worth, texts), key=_order) for status, texts in found.items() if texts}


def findings() -> list[tuple[str, str]]:
    """What is found in a case and what to do, with ``…`` for what is filled in."""
    rows = set()
    for call in _calls():
        if isinstance(call.func, ast.Name) and call.func.id in ("Finding", "Problem", "Unreadable"):
            texts = call.args[call.func.id == "Problem" :][:2]  # a problem names its case first
            if len(texts) == 2 and _worth(text := sentence(texts[0])):
                rows.add((text, sentence(texts[1])))
    return sorted(rows, key=lambda row: _order(row[0]))


def sentence(node: ast.expr) -> str:
    """The words of a string as it stands in the source."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return re.sub("…+", "…", "".join(map(sentence, node.values)))
    if isinstance(node, ast.BinOp):
        return sentence(node.left) + sentence(node.right)
    return "…"


def _calls() -> Iterator[ast.Call]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield node


def _worth(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}", text)) >= _LEAST


def _order(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()
