"""HTML pieces: escaped text, tables, figures and the page around them, with its style.

Every function takes plain text and escapes it, except where a parameter is named ``html``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

__all__ = [
    "escape",
    "facts",
    "jpeg",
    "legend",
    "page",
    "paragraph",
    "section",
    "table",
    "tiles",
    "warning_list",
]

_STYLE = """
:root { color-scheme: light dark; --ground: #f5f6f8; --card: #ffffff; --ink: #1b2330; --soft: #5c6779;
  --faint: #c9d0da; --line: #e4e8ee; --accent: #2563c9; --warn: #fff4d6; --warn-line: #e0a800; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c; --card: #1b212a; --ink: #e8ecf2; --soft: #9aa7b8;
  --faint: #465162; --line: #2b3440; --accent: #6ea8ff; --warn: #33290f; --warn-line: #b98a00; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 0 0 10px; }
.wide + p { margin-top: 10px; }
.lead { font-size: 17px; color: var(--soft); margin: 0 0 22px; }
.soft { color: var(--soft); font-size: 13px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px;
  margin: 0 0 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 14px; margin: 0 0 18px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 18px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; letter-spacing: -0.02em; }
.tile span { color: var(--soft); font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 13px; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; }
tr.total td { font-weight: 600; border-top: 2px solid var(--faint); }
td.shade { background: color-mix(in srgb, var(--accent) calc(var(--v) * 38%), transparent); }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.facts td:first-child { width: 30%; color: var(--soft); white-space: nowrap; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 8px 28px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 14px; padding: 0; list-style: none; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px; }
figure { margin: 0; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; border-radius: 8px; background: #000; }
figcaption { color: var(--soft); font-size: 13px; margin: 6px 0 0; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-size: 14px; }
.cases { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 20px; }
.cases figure { margin: 0 0 18px; }
svg { display: block; max-width: 100%; height: auto; }
ul.warnings { margin: 0; padding: 12px 16px 12px 32px; background: var(--warn); border-radius: 8px;
  border-left: 4px solid var(--warn-line); overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 13px; text-align: center; margin-top: 24px; }
@media print {
  :root { --ground: #ffffff; --card: #ffffff; --ink: #111111; --soft: #444444; --faint: #bbbbbb; --line: #dddddd;
    --accent: #2563c9; --warn: #fff8e5; }
  body { font-size: 11px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  section { border: none; padding: 8px 0; }
  .columns { grid-template-columns: 1fr 1fr; }
  tr, .tile { break-inside: avoid; }
  h2, h3, .legend { break-after: avoid; }
}
@media screen and (max-width: 760px) { .cases, .columns { grid-template-columns: 1fr; } }
"""


def page(title: str, html: str, footer: str) -> str:
    """A whole document that needs no other file."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{html}\n"
        f"<footer>{escape(footer)}</footer>\n</main>\n</body>\n</html>\n"
    )


def section(title: str, html: str) -> str:
    """A card with a heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{html}\n</section>"


def paragraph(text: str, style: str = "") -> str:
    """A paragraph; ``style`` is one of the page's classes."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """Large figures with what they mean: (figure, meaning)."""
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in values
    )
    return f'<div class="tiles">{cells}</div>'


def swatch(color: str) -> str:
    """A small square of a colour."""
    return f'<i class="swatch" style="background:{escape(color)}"></i>'


def legend(colors: Mapping[str, str]) -> str:
    """Names with their colours."""
    items = "".join(f"<li>{swatch(color)}{escape(name)}</li>" for name, color in colors.items())
    return f'<ul class="legend">{items}</ul>'


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    colors: Mapping[str, str] | None = None,
    total: Sequence[str] | None = None,
    shades: Sequence[Sequence[float | None]] | None = None,
) -> str:
    """A table of text.

    Args:
        header: column names.
        rows: cells as text; the first names the row.
        colors: swatches for row names.
        total: a last row, set apart.
        shades: per row and cell a number in [0, 1] that shades the cell, or ``None``.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = []
    for number, row in enumerate(rows):
        color = (colors or {}).get(row[0])
        cells = [f"<td>{swatch(color) if color else ''}{escape(row[0])}</td>"]
        for place, cell in enumerate(row[1:], 1):
            shade = shades[number][place] if shades else None
            style = f' class="shade" style="--v:{shade:.3f}"' if shade is not None else ""
            cells.append(f"<td{style}>{escape(cell)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    if total:
        body.append(f'<tr class="total">{"".join(f"<td>{escape(cell)}</td>" for cell in total)}</tr>')
    lines = "\n".join(body)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'


def facts(groups: Mapping[str, Mapping[str, str]]) -> str:
    """Groups of name and value in columns; empty values are left out."""
    parts = []
    for title, values in groups.items():
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in values.items() if value
        )
        parts.append(f'<div><h3>{escape(title)}</h3><table class="facts"><tbody>{rows}</tbody></table></div>')
    return f'<div class="columns">{"".join(parts)}</div>'


def warning_list(lines: Iterable[str]) -> str:
    """A list that is seen."""
    return f'<ul class="warnings">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def jpeg(data: bytes, title: str, caption: str) -> str:
    """A picture inside the page, with a heading and a caption."""
    source = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return (
        f'<figure><img src="{source}" alt="{escape(title)}"><figcaption><b>{escape(title)}</b><br>'
        f"{escape(caption)}</figcaption></figure>"
    )
