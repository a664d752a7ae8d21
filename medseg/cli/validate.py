"""``medseg validate``."""

from __future__ import annotations

import argparse
import math
from typing import Any

HELP = "Score a run's validation cases on the images' own grid: Dice, HD95 and surface Dice per case and label."
CHECKPOINT = "best, last, best_<metric> where it is kept, all, or a file (default best)"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--checkpoint", default="best", metavar="C", help=CHECKPOINT)
    parser.add_argument(
        "--section",
        default="validation",
        metavar="S",
        help="section of the run's datalist (default validation); test is for the last score, not for choices",
    )
    parser.add_argument(
        "--space", choices=("source", "model"), default="source", help="grid of the scores (default source)"
    )
    parser.add_argument("--tolerance", type=float, metavar="MM", help="tolerance of the surface Dice in mm (default 1)")
    parser.add_argument("--data_dir", metavar="DIR", help="where the images are now (default: as in training)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--postprocess", action="store_true", help="apply what `medseg postprocess` stored (default: raw predictions)"
    )
    parser.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="NAME",
        help="a further config of the run, such as evaluate_published",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="any id of the config, such as overlap=0.25"
    )


def run(args: argparse.Namespace) -> int:
    from medseg.workflows.compose import parse_assignments
    from medseg.workflows.evaluation import evaluate
    from medseg.workflows.folds import evaluate_checkpoints, evaluate_folds, fold_runs

    settings: dict[str, Any] = {
        "space": args.space,
        "tolerance": args.tolerance,
        "device": args.device,
        "data_dir": args.data_dir,
        "postprocess": args.postprocess,
        "overrides": parse_assignments(args.set),
        "overlays": args.overlay,
        "section": args.section,
    }
    if args.checkpoint == "all":
        results = evaluate_checkpoints(args.run, **settings)
        for name, result in results.items():
            print(f"checkpoint {name}")
            print_scores(result)
        return 0
    print_scores(
        (evaluate_folds if fold_runs(args.run) else evaluate)(args.run, checkpoint=args.checkpoint, **settings)
    )
    return 0


def print_scores(result: dict[str, Any]) -> None:
    """The table per label, which predictions are background, and the mean as the last line."""
    from medseg.metrics import background_cases, background_note

    distance = f"HD95 {result.get('unit', 'mm')}"
    print(f"{'label':<28}{'cases':>6}{'Dice':>9}{distance:>10}{'surface Dice':>14}")
    for label, row in result["labels"].items():
        values = [row.get(score, {}).get("mean") for score in ("dice", "hd95", "surface_dice")]
        shown = ["-" if value is None or math.isnan(value) else f"{value:.4f}" for value in values]
        print(f"{label[:27]:<28}{row['dice']['cases']:>6}{shown[0]:>9}{shown[1]:>10}{shown[2]:>14}")
    if note := background_note(background_cases(result["cases"]), len(result["cases"])):
        print(f"warning: {note}")
    mean = result["mean_dice"]
    print(f"mean_dice: {'nan' if mean is None else f'{mean:.4f}'}")
