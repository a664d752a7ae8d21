"""Reports: what a run was, how it learned and how good it is, as one HTML file."""

from medseg.reports.report import write_report

__all__ = ["write_report"]
