"""Tables for a paper: LaTeX with the rules of booktabs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["escaped", "latex_table"]

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "³": r"\textsuperscript{3}",
}


def escaped(text: str) -> str:
    """The text as LaTeX prints it."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str, bold: frozenset[tuple[int, int]]
) -> str:
    """A table environment; it needs the package booktabs, and graphicx where it is wider than the page.

    Args:
        header: column names; the first column is to the left, the others to the right.
        rows: cells.
        caption: caption.
        label: for references.
        bold: row and column of the cells in bold.
    """
    lines = [" & ".join(map(escaped, header)) + r" \\", r"\midrule"]
    for number, row in enumerate(rows):
        cells = (
            rf"\textbf{{{escaped(cell)}}}" if (number, place) in bold else escaped(cell)
            for place, cell in enumerate(row)
        )
        lines.append(" & ".join(cells) + r" \\")
    body = "\n".join(lines)
    return (
        "% \\usepackage{booktabs, graphicx}\n\\begin{table}[t]\n\\centering\n"
        f"\\caption{{{escaped(caption)}}}\n\\label{{{label}}}\n"
        f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n"
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}}}\n"
        "\\end{table}\n"
    )
