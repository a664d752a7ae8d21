#!/usr/bin/env python3
"""From a fresh checkout to a trained, validated and reported network on synthetic data, in a few minutes.

Only Python 3.10 or newer is needed. It makes .venv in the repository and installs medseg there (once), writes a small
synthetic CT data set to runs/quickstart/data, trains for some minutes on it, validates, segments one image and writes
a report. Nothing outside the repository is touched. Repeated calls go on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

from environment import ROOT, main, prepare, say, stream

NETWORK = "ssh_unet"
FOLDER = ROOT / "runs" / "quickstart"


def quickstart(arguments: list[str]) -> int:
    """The whole way; every step is left out where its result is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, metavar="M", help="training time (default 4)")
    parser.add_argument("--fresh", action="store_true", help="delete runs/quickstart first and start anew")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    if options.fresh and FOLDER.exists():
        say(f"deleting {FOLDER}")
        shutil.rmtree(FOLDER)
    python = prepare("test")
    for number, (title, result, command) in enumerate(steps(options.minutes), 1):
        head = f"[{number}/5] {title}"
        if done(result):
            say(f"{head}: done already")
            continue
        say(f"{head}\n  $ medseg {' '.join(command)}")
        status = stream([str(python), "-m", "medseg.cli", *command])
        if status:
            say(f"'{title}' ended with status {status}. Run this again to go on, or with --fresh to start anew.")
            return status
    say(closing(FOLDER, time.monotonic() - began))
    return 0


def steps(minutes: float) -> list[tuple[str, Path, list[str]]]:
    """Title, the file that shows that a step is done, and the arguments of ``medseg``."""
    data, run = FOLDER / "data", FOLDER / "run"
    datalist = data / "dataset.json"
    image = data / "imagesTs" / "organs_024.nii.gz"
    shown = [str(path.relative_to(ROOT)) for path in (data, run, datalist, image, FOLDER / "segmented")]
    train = ["train", "--network", NETWORK, "--json_list", shown[2], "--fold", "0"]
    return [
        ("write a synthetic CT data set", datalist, ["phantom", "--kind", "organs", "--output", shown[0]]),
        (
            f"train {NETWORK} for {minutes:g} minutes",
            run / "run.json",
            [*train, "--max_minutes", f"{minutes:g}", "--output", shown[1]],
        ),
        ("validate", run / "metrics.json", ["validate", "--run", shown[1]]),
        (
            "segment one image",
            FOLDER / "segmented" / image.name,
            ["infer", shown[3], "--run", shown[1], "--output", shown[4]],
        ),
        ("write the report", run / "report.html", ["report", "--run", shown[1]]),
    ]


def done(result: Path) -> bool:
    """Whether a step's result is there; a training must have come to its end."""
    if not result.is_file():
        return False
    if result.name == "run.json":
        return json.loads(result.read_text(encoding="utf-8")).get("status") == "finished"
    return True


def closing(folder: Path, seconds: float) -> str:
    """The last words: the score, the files, and how to go on."""
    run = folder / "run"
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    lines = [f"\nDone in {seconds / 60:.1f} minutes." if seconds > 20 else "\nDone."]
    for label, scores in metrics["labels"].items():
        mean = scores["dice"]["mean"]
        lines.append(f"  Dice {label:<16} {'undefined' if mean is None else f'{mean:.3f}'}")
    mean = metrics["mean_dice"]
    lines += [
        f"mean Dice     {'undefined' if mean is None else f'{mean:.3f}'} ({len(metrics['cases'])} validation cases)",
        f"report        {run / 'report.html'}",
        f"segmentation  {folder / 'segmented'}",
        f"trained run   {run}",
        "",
        "With your own data (Decathlon datalist):",
        f"  source {(ROOT / '.venv' / 'bin' / 'activate').relative_to(ROOT)}",
        "  medseg train --network NAME --json_list my/dataset.json --fold 0 --output runs/mine",
        "  medseg validate --run runs/mine && medseg report --run runs/mine",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main(quickstart))
