#!/usr/bin/env python3
"""From a fresh checkout to a trained, validated and reported network on synthetic data, in a few minutes.

Only Python 3.10 or newer is needed. It makes .venv in the repository and installs medseg there (once), writes a small
synthetic CT data set to runs/quickstart/data, trains two networks on it for some minutes, validates, compares and
joins them, exports one, segments an image and writes a report. Nothing outside the repository is touched. Rerun
it to resume where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

from environment import ROOT, main, prepare, say, stream

NETWORK, SECOND = "ssh_unet", "SegResNet"
FOLDER = ROOT / "runs" / "quickstart"


def quickstart(arguments: list[str]) -> int:
    """The whole way; every step is left out where its result is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, metavar="M", help="training time of both (default 4)")
    parser.add_argument("--fresh", action="store_true", help="delete runs/quickstart first and start anew")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    if options.fresh and FOLDER.exists():
        say(f"deleting {FOLDER}")
        shutil.rmtree(FOLDER)
    python = prepare("test")
    todo = steps(options.minutes)
    for number, (title, result, command) in enumerate(todo, 1):
        head = f"[{number}/{len(todo)}] {title}"
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
    data, first, second = (FOLDER / name for name in ("data", "run", "second"))
    datalist, image = data / "dataset.json", data / "imagesTs" / "organs_024.nii.gz"

    def shown(path: Path) -> str:
        return str(path.relative_to(ROOT))

    def train(network: str, share: float, run: Path) -> tuple[str, Path, list[str]]:
        time_limit = f"{share * minutes:g}"
        command = ["train", "--network", network, "--json_list", shown(datalist), "--fold", "0"]
        command += ["--max_minutes", time_limit, "--output", shown(run)]
        return f"train {network} for {time_limit} minutes", run / "run.json", command

    both = ["--run", shown(first), "--run", shown(second)]
    compared, joined, exported = (FOLDER / name for name in ("compared", "ensemble", "exported"))
    segmented = FOLDER / "segmented"
    return [
        ("write a synthetic CT data set", datalist, ["phantom", "--kind", "organs", "--output", shown(data)]),
        train(NETWORK, 0.7, first),
        (f"validate {NETWORK}", first / "metrics.json", ["validate", "--run", shown(first)]),
        train(SECOND, 0.3, second),
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
    """The last words: the score, the files, and how to go on."""
    run = folder / "run"
    lines = [f"\nDone in {seconds / 60:.1f} minutes." if seconds > 20 else "\nDone."]
    for name, place in ((NETWORK, "run"), (SECOND, "second"), ("both joined", "ensemble")):
        metrics = json.loads((folder / place / "metrics.json").read_text(encoding="utf-8"))
        means = {label: scores["dice"]["mean"] for label, scores in metrics["labels"].items()}
        listed = ", ".join(f"{label} {_number(mean)}" for label, mean in means.items())
        cases = len(metrics["cases"])
        lines.append(f"  {name:<12} mean Dice {_number(metrics['mean_dice'])} ({listed}; {cases} cases)")
    lines += [
        f"report        {run / 'report.html'}",
        f"comparison    {folder / 'compared' / 'comparison.html'}",
        f"segmentation  {folder / 'segmented'}",
        f"export        {folder / 'exported'}",
        f"trained run   {run}",
        "",
        "With your own data (Decathlon datalist):",
        f"  source {(ROOT / '.venv' / 'bin' / 'activate').relative_to(ROOT)}",
        "  medseg train --network NAME --json_list my/dataset.json --fold 0 --output runs/mine",
        "  medseg validate --run runs/mine && medseg report --run runs/mine",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    raise SystemExit(main(quickstart))
