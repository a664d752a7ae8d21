"""``medseg ensemble``."""

from __future__ import annotations

import argparse

HELP = "Join several runs, or the folds of one, into one prediction; scored where references exist."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        action="append",
        required=True,
        metavar="DIR",
        help="run folder, repeat for each; a folder of folds stands for its folds",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for predictions and scores")
    parser.add_argument(
        "--method", choices=("mean", "vote"), default="mean", help="of probabilities, or of labels (default mean)"
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="comma-separated numbers, or 'dice' for each run's score on its validation cases (default equal)",
    )
    parser.add_argument("--json_list", metavar="FILE", help="datalist (default: the first run's)")
    parser.add_argument("--data_dir", metavar="DIR", help="what the datalist's paths are relative to")
    parser.add_argument(
        "--section", default="validation", metavar="S", help="section of the datalist (default validation)"
    )
    parser.add_argument(
        "--fold", type=int, metavar="K", help="fold whose validation cases are predicted (default: the first run's)"
    )
    parser.add_argument("--checkpoint", default="best", metavar="C", help="best or last (default best)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--no_postprocess", action="store_true", help="leave out what `medseg postprocess` stored in all runs alike"
    )


def run(args: argparse.Namespace) -> int:
    from medseg.cli.validate import print_scores
    from medseg.engines.run_facts import read_facts
    from medseg.errors import ConfigError
    from medseg.metrics import background_note
    from medseg.workflows.ensemble import ensemble

    weights: list[float] | str | None = args.weights
    if weights is not None and weights != "dice":
        try:
            weights = [float(part) for part in str(weights).split(",")]
        except ValueError as error:
            raise ConfigError(
                f"--weights {args.weights!r}: expected numbers separated by commas, or 'dice'."
            ) from error
    result = ensemble(
        args.run,
        args.output,
        method=args.method,
        weights=weights,
        json_list=args.json_list,
        data_dir=args.data_dir,
        section=args.section,
        fold=args.fold,
        checkpoint=args.checkpoint,
        device=args.device,
        postprocess=not args.no_postprocess,
    )
    if result is None:
        facts = read_facts(args.output)
        if note := background_note(facts.background_predictions or (), facts.predictions or 0):
            print(f"warning: {note}")
        print(f"predictions: {args.output}/predictions")
    else:
        print_scores(result)
    return 0
