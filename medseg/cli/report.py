"""``medseg report``."""

from __future__ import annotations

import argparse

HELP = "Write a run's report: curves, scores with intervals, overlays of the worst and best cases, and all settings."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--data_dir", metavar="DIR", help="where the images are now (default: as in training)")


def run(args: argparse.Namespace) -> int:
    from medseg.reports import write_report

    print(f"report: {write_report(args.run, data_dir=args.data_dir)}")
    return 0
