"""HTML pages: a template of this package filled with values. All text is escaped; only charts come as markup."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from medseg.version import __version__

__all__ = ["Picture", "Table", "render"]

_TEMPLATES = Environment(
    loader=PackageLoader("medseg.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Attributes:
        header: column names.
        rows: cells; the first names the row.
        colors: name of a row -> colour of its swatch.
        total: last row, set apart.
        shades: per row and cell a number in [0, 1] that shades the cell, or ``None``.
        title: heading above it, where a section has several.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    colors: Mapping[str, str] = field(default_factory=dict)
    total: Sequence[str] = ()
    shades: Sequence[Sequence[float | None]] = ()
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure as a JPEG inside the page, with its heading and caption.

    Attributes:
        jpeg: the page's rendering.
        title, caption: words below it.
        name: stem of the figure's own files.
        figure: what they show.
    """

    jpeg: bytes
    title: str
    caption: str
    name: str
    figure: Figure

    @property
    def source(self) -> str:
        """The figure as a data URL."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def render(template: str, page: Any) -> str:
    """A whole document that needs no other file.

    Args:
        template: file in ``templates/``.
        page: the values that it shows.
    """
    return _TEMPLATES.get_template(template).render(page=page, version=__version__)
