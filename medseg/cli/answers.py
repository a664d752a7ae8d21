"""What a command prints at its end: functions of its settings and of what its function returned.

Nothing heavy is imported before one is called.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.cli.parts import describe_options


def lines(s: Any, result: Sequence[Any]) -> None:
    """A result that is lines already."""
    print("\n".join(map(str, result)))


def validated(s: Any, results: Mapping[str, Mapping[str, Any]]) -> None:
    for name, result in results.items():
        if s.checkpoint == "all":
            print(f"checkpoint {name}")
        _scores(result)


def _scores(result: Mapping[str, Any]) -> None:
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


def inferred(s: Any, results: Mapping[Path, Sequence[Path]]) -> None:
    from medseg.inferers.prediction_folder import background_predictions
    from medseg.metrics import background_note

    for folder, label_maps in results.items():
        if note := background_note(background_predictions(label_maps), len(label_maps)):
            print(f"warning: {note}")
        print(f"{len(label_maps)} label maps in {folder}")


def joined(s: Any, result: Mapping[str, Any] | None) -> None:
    from medseg.engines.run_facts import read_facts
    from medseg.metrics import background_note

    if result is not None:
        _scores(result)
        return
    facts = read_facts(s.output)
    if note := background_note(facts.background_predictions or (), facts.predictions or 0):
        print(f"warning: {note}")
    print(f"predictions: {s.output}/predictions")


def postprocessed(s: Any, content: Mapping[str, Any]) -> None:
    from medseg.reports.tables import digits, markdown_table

    rows = []
    for label, found in content["labels"].items():
        for step in found["tried"]:
            low, high = (digits(bound, 4, sign=True) for bound in step["interval"])
            if step["taken"] or step["mean_difference"]:
                difference, taken = digits(step["mean_difference"], 4, sign=True), "yes" if step["taken"] else "no"
                rows.append([label, _steps(step["to"]), str(step["cases"]), difference, f"{low} to {high}", taken])
    if rows:
        print(markdown_table(["label", "steps", "cases", "Dice difference", "95 % interval", "taken"], rows))
    if not content["rules"]:
        print(f"No step is shown to help on {content['cases']} cases; label maps stay as the network gives them.")
        return
    mean = content["mean_dice"]
    print(f"stored: {'; '.join(f'{label}: {_steps(rule)}' for label, rule in content['rules'].items())}")
    print(
        f"mean Dice {mean['before']:.4f} -> {mean['after']:.4f} on the cases that the steps were chosen on, so the "
        f"second is optimistically biased. `medseg validate --run {s.run}` scores cleaned predictions from now on."
    )


def _steps(rule: Mapping[str, object]) -> str:
    return ", ".join(step if value is True else f"{step} {value:g}" for step, value in rule.items())


def compared(s: Any, content: Mapping[str, Any]) -> None:
    from medseg.reports.comparison import comparison_markdown

    print(comparison_markdown(content))
    print(f"\npage: {s.output}/comparison.html")


def rescaled(s: Any, content: Mapping[str, Any]) -> None:
    from medseg.reports.resolution import resolution_markdown

    print(resolution_markdown(content))
    print(f"\nfigure: {s.output}/resolution.png")


def exported(s: Any, content: Mapping[str, Any]) -> None:
    for name, made in content["exports"].items():
        taken = made["multiples_of"]
        print(f"{name}: {made['file']} by {made['method']}, " + (f"multiples of {taken}" if taken else "one size only"))
        for row in made["parity"]:
            print(f"  {row['size']}: differs by {row['difference']:.1e}, largest logit {row['largest_logit']:.3g}")
        if made["note"]:
            print(f"  {made['note']}")
    print(f"exported: {s.output}")


def listed(s: Any, made: Any) -> None:
    for note in made.notes:
        print(note)
    for warning in made.warnings:
        print(f"warning: {warning}")
    counts = [f"{number} {name}" for name, number in made.sections.items() if number]
    counts[0] += f" in {made.folds} folds" if made.folds else ""
    print(f"{made.path}: {', '.join(counts)} cases")
    print(f"its paths are relative to {made.root}")


def networks(s: Any, found: Sequence[Any]) -> None:
    rows = [(f.name, ",".join(f"{d}D" for d in f.spatial_dims), f"{f.parameters:,}", f.setting, f.paper) for f in found]
    header = ("name", "dims", "parameters", "at", "paper")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for name, dims, parameters, setting, paper in (header, *rows):
        cells = (name.ljust(widths[0]), dims.ljust(widths[1]), parameters.rjust(widths[2]), setting.ljust(widths[3]))
        print("  ".join((*cells, paper)))
    print("MONAI's own classes (SegResNet, DynUNet, SwinUNETR, …) and dotted paths work as --network too.")


def measured(s: Any, content: Mapping[str, Any]) -> None:
    from medseg.workflows.benchmark_table import benchmark_lines

    print("\n".join(benchmark_lines(content)))


def planned(s: Any, settings: Iterable[Any]) -> None:
    print("\n".join(setting.line() for setting in settings))
    print(f"bundle: {s.output}")


def imported(s: Any, report: Any) -> None:
    print("\n".join(report.lines()))
    print(f"written: {s.output}")


def packed(s: Any, members: Iterable[str]) -> None:
    print("\n".join(members))
    print(f"written: {s.output}")


def prepared(s: Any, result: Any) -> None:
    print("\n".join(result.lines()))


def data_set(name: str, module: Any) -> None:
    """What `medseg prepare --list` says of a data set."""
    facts = module.FACTS
    labels = [label for value, label in sorted(facts.labels.items()) if value]
    rows = {
        "images": f"{facts.spatial_dims}D {', '.join(facts.modality) or '(modality as the archive says)'}",
        "labels": f"{len(labels)}: {', '.join(labels)}" if labels else "as the archive says",
        "splits": ", ".join(f"{number} {section}" for section, number in facts.splits.items()),
        "source": facts.source,
        "terms": facts.terms,
        "--raw": facts.layout,
        "options": describe_options(module.prepare),
    }
    _entry(f"{name}: {facts.title}", rows.items())


def challenge(name: str, module: Any) -> None:
    """What `medseg submit --list` says of a challenge."""
    facts = module.FACTS
    rows = [("where", facts.source), ("data", f"{facts.dataset}, section {facts.section}")]
    rows += [("rule", rule) for rule in facts.documented]
    rows += [("practice", f"{rule} (not verified)") for rule in facts.unverified]
    _entry(f"{name}: {facts.title}", [*rows, ("options", describe_options(module.submitted))])


def _entry(heading: str, rows: Iterable[tuple[str, str]]) -> None:
    """A heading and indented, wrapped rows; rows without text are skipped."""
    print(heading)
    for key, text in rows:
        for line in textwrap.wrap(text, 100, initial_indent=f"  {key:<9}", subsequent_indent=" " * 11):
            print(line)
