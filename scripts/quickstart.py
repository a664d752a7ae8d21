#!/usr/bin/env python3
"""From a fresh checkout to a trained, validated and reported network on synthetic data, in a few minutes.

Only Python 3.10 or newer is needed. It makes .venv in the repository and installs medseg there (once), writes a small
synthetic CT data set to runs/quickstart/data, trains two networks on it for equal CPU time, validates, compares and
joins them, exports one, segments an image and writes a report. Nothing outside the repository is touched. Rerun it to
resume where it stopped.

The CPU time of training is what counts, so that a busy machine takes longer but learns as much.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

from environment import ROOT, main, prepare, say, stream

NETWORK, SECOND = "hnoseg_xs", "SegResNet"  # 28 thousand parameters, and the usual kind of network
FOLDER = ROOT / "runs" / "quickstart"
CORES = 2  # that the minutes are meant for; more of them end sooner
MINUTES, CASES = 4.0, 36  # of which six subjects are validated: the fewest that have an interval
QUICK_MINUTES, QUICK_CASES = 0.4, 12


def quickstart(arguments: list[str]) -> int:
    """The whole way; a step whose result exists is skipped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the cases, trained for less than a minute")
    parser.add_argument(
        "--minutes", type=float, metavar="M", help=f"training time of both on two idle cores (default {MINUTES:g})"
    )
    parser.add_argument("--fresh", action="store_true", help="delete the folder in runs/ first and start from scratch")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    folder = FOLDER.with_name("quickstart_quick") if options.quick else FOLDER
    if options.fresh and folder.exists():
        say(f"deleting {folder}")
        shutil.rmtree(folder)
    python = prepare("test")
    minutes = options.minutes or (QUICK_MINUTES if options.quick else MINUTES)
    todo = steps(folder, minutes, QUICK_CASES if options.quick else CASES)
    for number, (title, result, command) in enumerate(todo, 1):
        head = f"[{number}/{len(todo)}] {title}"
        if done(result):
            say(f"{head}: done already")
            continue
        say(f"{head}\n  $ medseg {' '.join(command)}")
        status = stream([str(python), "-m", "medseg.cli", *command])
        if status:
            say(f"'{title}' ended with status {status}. Rerun to resume, or with --fresh to start from scratch.")
            return status
    say(closing(folder, time.monotonic() - began))
    return 0


def steps(folder: Path, minutes: float, cases: int) -> list[tuple[str, Path, list[str]]]:
    """Title, the file that shows that a step is done, and the arguments of ``medseg``."""
    data, first, second = (folder / name for name in ("data", NETWORK, SECOND))
    datalist, image = data / "dataset.json", data / "imagesTs" / f"organs_{cases:03}.nii.gz"

    def shown(path: Path) -> str:
        return str(path.relative_to(ROOT))

    def train(network: str, run: Path) -> tuple[str, Path, list[str]]:
        time_limit = f"{minutes / 2 * CORES:g}"
        command = ["train", "--network", network, "--json_list", shown(datalist), "--fold", "0"]
        command += ["--max_minutes", time_limit, "--set", "clock=cpu"]
        # The time is all for learning: nothing is chosen by validation, which `validate` does once.
        command += ["--select", "final", "--set", "num_validations=0", "--output", shown(run)]
        return f"train {network} for {time_limit} CPU minutes", run / "run.json", command

    both = ["--run", shown(first), "--run", shown(second)]
    compared, joined, exported = (folder / name for name in ("compared", "ensemble", "exported"))
    segmented = folder / "segmented"
    return [
        (
            "write a synthetic CT data set",
            datalist,
            ["phantom", "--kind", "organs", "--cases", str(cases), "--output", shown(data)],
        ),
        train(NETWORK, first),
        (f"validate {NETWORK}", first / "metrics.json", ["validate", "--run", shown(first)]),
        train(SECOND, second),
        (f"validate {SECOND}", second / "metrics.json", ["validate", "--run", shown(second)]),
        ("compare them", compared / "comparison.html", ["compare", *both, "--output", shown(compared)]),
        ("join them", joined / "metrics.json", ["ensemble", *both, "--output", shown(joined)]),
        (
            f"export {NETWORK} as TorchScript",
            exported / "deployment.json",
            ["export", shown(first), "--format", "torchscript", "--output", shown(exported)],
        ),
        (
            "segment one image",
            segmented / image.name,
            ["infer", shown(image), "--run", shown(first), "--output", shown(segmented)],
        ),
        ("write the report", first / "report.html", ["report", "--run", shown(first)]),
    ]


def done(result: Path) -> bool:
    """Whether a step's result is there; a training must have come to its end."""
    if not result.is_file():
        return False
    if result.name == "run.json":
        return json.loads(result.read_text(encoding="utf-8")).get("status") == "finished"
    return True


def closing(folder: Path, seconds: float) -> str:
    """The last words: the scores, what to do with one's own data, the files, and the page to open."""
    run = folder / NETWORK
    lines = [f"\nDone in {seconds / 60:.1f} minutes." if seconds > 20 else "\nDone."]
    for name, place in ((NETWORK, NETWORK), (SECOND, SECOND), ("both joined", "ensemble")):
        metrics = json.loads((folder / place / "metrics.json").read_text(encoding="utf-8"))
        means = {label: scores["dice"]["mean"] for label, scores in metrics["labels"].items()}
        listed = ", ".join(f"{label} {_number(mean)}" for label, mean in means.items())
        cases = len(metrics["cases"])
        lines.append(f"  {name:<12} mean Dice {_number(metrics['mean_dice'])} ({listed}; {cases} cases)")
    lines += [
        "",
        "With your own folder of images and labels:",
        f"  source {(ROOT / '.venv' / 'bin' / 'activate').relative_to(ROOT)}",
        "  medseg init FOLDER    # looks at it, and prints the next commands",
        "",
        f"trained run   {run}",
        f"segmentation  {folder / 'segmented'}",
        f"export        {folder / 'exported'}",
        f"report        {run / 'report.html'}",
        f"comparison    {folder / 'compared' / 'comparison.html'}",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    raise SystemExit(main(quickstart))
