"""``medseg postprocess``."""

from __future__ import annotations

import argparse

HELP = "Choose post-processing on a run's validation predictions; only what is shown to help is stored and applied."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", required=True, metavar="DIR", help="run folder with raw validation predictions; folds are pooled"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="where the references are now (default: as in training)")


def run(args: argparse.Namespace) -> int:
    from medseg.reports.tables import digits, markdown_table
    from medseg.workflows.postprocessing import postprocess

    content = postprocess(args.run, data_dir=args.data_dir)
    rows = []
    for label, found in content["labels"].items():
        for step in found["tried"]:
            low, high = (digits(bound, 4, sign=True) for bound in step["interval"])
            if step["taken"] or step["mean_difference"]:
                rows.append(
                    [
                        label,
                        _steps(step["to"]),
                        str(step["cases"]),
                        digits(step["mean_difference"], 4, sign=True),
                        f"{low} to {high}",
                        "yes" if step["taken"] else "no",
                    ]
                )
    if rows:
        print(markdown_table(["label", "steps", "cases", "Dice difference", "95 % interval", "taken"], rows))
    if not content["rules"]:
        print(f"No step is shown to help on {content['cases']} cases; label maps stay as the network gives them.")
        return 0
    mean = content["mean_dice"]
    print(f"stored: {'; '.join(f'{label}: {_steps(rule)}' for label, rule in content['rules'].items())}")
    print(
        f"mean Dice {mean['before']:.4f} -> {mean['after']:.4f} on the cases that the steps were chosen on, so the "
        f"second is optimistically biased. `medseg validate --run {args.run}` scores cleaned predictions from now on."
    )
    return 0


def _steps(rule: dict[str, object]) -> str:
    return ", ".join(step if value is True else f"{step} {value:g}" for step, value in rule.items())
