"""Pages come from templates, and everything that they show is escaped."""

import ast
import re
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path

from matplotlib.figure import Figure

from medseg import reports
from medseg.reports.agreement import Agreement
from medseg.reports.drawing import Chart
from medseg.reports.page import Table, render
from medseg.reports.report import ReportPage

_TAG = r"</?(a|b|br|div|figure|h[1-6]|html|i|img|li|p|section|span|style|table|t[dhr]|ul)[ >]"
EVIL = "\"><script>alert('x')</script>&"


def test_everything_is_escaped():
    page = ReportPage(
        title=EVIL,
        lead=EVIL,
        tiles=[(EVIL, EVIL)],
        warnings=[EVIL],
        curves=[Chart("<svg></svg>", EVIL, EVIL, Figure())],
        scores=_Scores(),
        calibration=None,
        settings={EVIL: {EVIL: EVIL}},
    )
    html = render("report.html", page)
    assert "<script" not in html and html.count("<svg></svg>") == 3
    assert unescape(html).count(EVIL) == 27


@dataclass
class _Overlays:
    colors: dict = field(default_factory=lambda: {EVIL: EVIL})
    explanation: str = EVIL
    columns: dict = field(default_factory=lambda: {EVIL: []})


@dataclass
class _Scores:
    labels: Table = Table([EVIL], [[EVIL]], {EVIL: "#808080"}, [EVIL])
    explanation: str = EVIL
    chart: Chart = Chart("<svg></svg>", EVIL, EVIL, Figure())
    every: Table = Table([EVIL], [[EVIL]])
    volumes: Agreement = Agreement(Table([EVIL], [[EVIL]]), Chart("<svg></svg>", EVIL, EVIL, Figure()), EVIL)
    overlays: _Overlays = field(default_factory=_Overlays)
    cases: Table = Table([EVIL], [[EVIL]], shades=[[0.25]])


def test_python_holds_no_tags():
    for path in Path(reports.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(_TAG, node.value), (path, node.value)
