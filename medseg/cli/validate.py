"""``medseg validate``."""

from __future__ import annotations

import argparse
import math
from typing import Any

HELP = "Score a run's validation cases in the original image space: Dice, HD95 and surface Dice per case and label."
CHECKPOINT = "best, last, best_<metric> where it is kept, all, or a file (default best)"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--checkpoint", default="best", metavar="C", help=CHECKPOINT)
    parser.add_argument(
        "--section",
        metavar="S",
        help="section of the run's datalist (default: that of the config, validation); test is for the last score, not "
        "for choices, and its scores lie in scores/test",
    )
    parser.add_argument(
        "--space", choices=("source", "model"), default="source", help="grid of the scores (default source)"
    )
    parser.add_argument("--tolerance", type=float, metavar="MM", help="tolerance of the surface Dice in mm (default 1)")
    parser.add_argument("--data_dir", metavar="DIR", help="where the images are now (default: as in training)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--no_postprocess",
        action="store_true",
        help="score raw predictions (default: cleaned by what `medseg postprocess` stored, as inference gives them)",
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
    from medseg.bundle.compose import parse_assignments
    from medseg.workflows.evaluation import EvaluateSettings, evaluate
    from medseg.workflows.folds import evaluate_checkpoints, evaluate_folds, fold_runs

    settings = EvaluateSettings(
        args.run,
        checkpoint=args.checkpoint,
        space=args.space,
        tolerance=args.tolerance,
        device=args.device,
        data_dir=args.data_dir,
        postprocess=not args.no_postprocess,
        overrides=parse_assignments(args.set),
        overlays=args.overlay,
        section=args.section,
    )
    if args.checkpoint == "all":
        for name, result in evaluate_checkpoints.of(settings).items():
            print(f"checkpoint {name}")
            print_scores(result)
        return 0
    print_scores((evaluate_folds if fold_runs(args.run) else evaluate).of(settings))
    return 0


def print_scores(result: dict[str, Any]) -> None:
    """What was scored, the table per label, which predictions are background, and the mean as the last line."""
    from medseg.metrics import background_cases, background_note
    from medseg.reports.scored import scored_lines

    print("\n".join(scored_lines(result)))
    distance = f"HD95 {result.get('unit', 'mm')}"
    print(f"{'label':<28}{'cases':>6}{'Dice':>9}{distance:>10}{'surface Dice':>14}")
    for label, row in result["labels"].items():
        shown = [_digits(row.get(score, {}).get("mean")) for score in ("dice", "hd95", "surface_dice")]
        print(f"{label[:27]:<28}{row['dice']['cases']:>6}{shown[0]:>9}{shown[1]:>10}{shown[2]:>14}")
    if "sd_over_folds" in result:
        each = ", ".join(f"{name}: {_digits(mean)}" for name, mean in result["folds"].items())
        print(
            f"{len(result['folds'])} scores on the same cases, not pooled ({each}); mean over folds, standard "
            f"deviation {_digits(result['sd_over_folds'])}. `medseg ensemble` joins the folds into one prediction."
        )
    scored = result.get("cases", {})
    if note := background_note(background_cases(scored), len(scored)):
        print(f"warning: {note}")
    print(f"mean_dice: {_digits(result['mean_dice'], 'nan')}")


def _digits(value: float | None, undefined: str = "-") -> str:
    return undefined if value is None or math.isnan(value) else f"{value:.4f}"
