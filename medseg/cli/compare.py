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
        help="run folder, repeat for each; the first is the baseline",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for comparison.json, .csv and .html")
    parser.add_argument(
        "--score", choices=("dice", "surface_dice", "hd95"), default="dice", help="what is compared (default dice)"
    )


def run(args: argparse.Namespace) -> int:
    from medseg.workflows.compare import compare

    content = compare(args.run, args.output, score=args.score)
    print(f"{'run':<24}{'label':<26}{'cases':>6}{'difference':>12}{'95 % interval':>22}{'p (Holm)':>10}{'effect':>8}")
    for row in content["comparisons"]:
        interval = f"[{row['interval'][0]:+.4f}, {row['interval'][1]:+.4f}]"
        print(
            f"{row['run'][:23]:<24}{row['label'][:25]:<26}{row['cases']:>6}{row['mean_difference']:>+12.4f}{interval:>22}"
            f"{row['p_holm']:>10.3g}{row['effect_size']:>8.2f}"
        )
    for entry in content["runs"]:
        print(f"{entry['run']}: mean {content['score']} {entry['mean']:.4f}")
    return 0
