"""Tables of text as Markdown that reads well as it stands and as LaTeX, and numbers as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medseg.metrics.shares import Share

__all__ = ["digits", "grouped", "latex_table", "markdown_table", "mean", "scaled", "share_of"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "≤": r"$\le$",
}
_LATEX |= {character: "\\" + character for character in "&%$#_{}"} | {
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "²": "$^2$",
}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width: the first to the left, the others to the right."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in escaped)) for column in range(len(header))]
    lines = []
    for row in escaped:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join([row[0].ljust(widths[0]), *padded[1:]])} |")
    rule = "|" + "|".join("-" * (w + 2) if not i else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def latex_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    *,
    bold: frozenset[tuple[int, int]] = frozenset(),
) -> str:
    """A LaTeX table with the rules of ``booktabs``: the first column to the left, the others to the right.

    ``bold``: row and column of the cells in bold.
    """
    lines = [" & ".join(map(_latex, header)) + r" \\"]
    for number, row in enumerate(rows):
        cells = (
            rf"\textbf{{{_latex(cell)}}}" if (number, place) in bold else _latex(cell) for place, cell in enumerate(row)
        )
        lines.append(" & ".join(cells) + r" \\")
    whole = [r"\begin{table}", r"\centering", *([rf"\caption{{{_latex(caption)}}}"] if caption else [])]
    whole += [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    return "\n".join([*whole, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def share_of(found: Share) -> str:
    """Such as ``0 of 20 (≤ 16.8 %)``: the share with its exact upper bound."""
    return f"{found.hits} of {found.of} (≤ {100 * found.high:.1f} %)"


def mean(values: np.ndarray) -> float:
    """The mean of what is defined; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def digits(value: float | None, places: int = 3, *, sign: bool = False) -> str:
    """A number with so many decimals; a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{places}f}"


def scaled(value: float | None, unit: float = 1.0) -> str:
    """A number in multiples of ``unit`` with three significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    share = value / unit
    if share == 0:
        return "0"
    return f"{share:.{max(0, 2 - math.floor(math.log10(abs(share))))}f}"


def grouped(value: int | None) -> str:
    """A whole number with spaces between thousands."""
    return "–" if value is None else f"{value:,}".replace(",", " ")
