"""``medseg compare``."""

from __future__ import annotations

import argparse

HELP = "Compare validated runs case by case: paired differences with intervals, tests and effect sizes."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        action="append",
        required=True,
        metavar="DIR",
        help="run folder, or scores/test of one, repeat for each; the first is the baseline",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for comparison.html, .md, .csv, .json and figures"
    )
    parser.add_argument(
        "--score", choices=("dice", "surface_dice", "hd95"), default="dice", help="what is compared (default dice)"
    )


def run(args: argparse.Namespace) -> int:
    from medseg.reports.comparison import comparison_markdown
    from medseg.workflows.compare import compare

    print(comparison_markdown(compare(args.run, args.output, score=args.score)))
    print(f"\npage: {args.output}/comparison.html")
    return 0
