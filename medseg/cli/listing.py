"""How commands list what they know: a heading and indented, wrapped rows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

__all__ = ["listing"]


def listing(heading: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of one entry; rows without text are left out."""
    lines = [heading]
    for key, text in rows:
        lines += textwrap.wrap(text, 100, initial_indent=f"  {key:<9}", subsequent_indent=" " * 11)
    return lines
