"""What a command prints at its end: functions of its settings and of what its function returned.

Nothing heavy is imported before one is called.
"""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.cli.parts import describe_options

if TYPE_CHECKING:
    from medseg.bundle.deployment import Deployment
    from medseg.bundle.package import PackageSettings
    from medseg.data.make_datalist import MadeDatalist, MakeDatalistSettings
    from medseg.data.nnunet_export import ExportedNnunet, ExportNnunetSettings
    from medseg.data.run_settings import Setting
    from medseg.metrics import FoldScores, Scores
    from medseg.networks.catalog import NetworkFacts
    from medseg.networks.layer_table import LayerTable
    from medseg.networks.listing import NetworksSettings
    from medseg.reports.calibrated import Calibration
    from medseg.reports.compared import Comparison
    from medseg.reports.resolution import Resolution
    from medseg.reports.studied import StudyResult
    from medseg.weights.importing import ImportWeightsSettings
    from medseg.weights.original.contract import ImportReport
    from medseg.workflows.benchmark import BenchmarkSettings
    from medseg.workflows.benchmark_result import Benchmark, CommandFigures
    from medseg.workflows.best import Best, BestSettings
    from medseg.workflows.calibration import CalibrateSettings
    from medseg.workflows.compare import CompareSettings
    from medseg.workflows.doctor import DoctorSettings, Symptom
    from medseg.workflows.ensemble import EnsembleSettings
    from medseg.workflows.evaluation import EvaluateSettings
    from medseg.workflows.export import ExportSettings
    from medseg.workflows.new_bundle import NewBundleSettings
    from medseg.workflows.postprocessing import Postprocessing, PostprocessSettings
    from medseg.workflows.prediction import PredictSettings
    from medseg.workflows.prepare import Prepared, PrepareSettings
    from medseg.workflows.resolution import ResolutionSettings
    from medseg.workflows.scored_predictions import ScorePredictionsSettings
    from medseg.workflows.study import StudySettings


_MOST_COLUMNS = 5  # scores beside each other


def lines(settings: object, result: Sequence[object]) -> None:
    """A result that is lines already."""
    print("\n".join(map(str, result)))


def validated(settings: EvaluateSettings, results: Mapping[str, Scores | FoldScores]) -> None:
    from medseg.engines.mirrored import mirrored_note

    for name, result in results.items():
        if settings.checkpoint == "all":
            print(f"checkpoint {name}")
        _scores(result)
    if settings.tta and (note := mirrored_note(Path(settings.run))):
        print(note)


def scored(settings: ScorePredictionsSettings, results: Mapping[str, Scores]) -> None:
    for name, result in results.items():
        if len(results) > 1:
            print(f"predictions {name}")
        _scores(result)


def _scores(result: Scores | FoldScores) -> None:
    """What was scored, the table per label, which predictions are background, and the mean as the last line."""
    from medseg.metrics import FoldScores, background_cases, background_note
    from medseg.metrics.catalog import metric
    from medseg.metrics.estimate import estimate
    from medseg.reports.scored import further_lines, interval_note, scored_lines

    print("\n".join(scored_lines(result)))
    headings = {name: metric(name).heading(result.definition.unit) for name in result.metrics}
    table = [["label", "cases", *headings.values()]]
    for label, row in result.labels.items():
        means = [_digits(row[name].mean) if name in row else "-" for name in headings]
        table.append([label[:27], str(row["dice"].cases), *means])
    if len(headings) > _MOST_COLUMNS:  # a row per score
        table = [list(cells) for cells in zip(*table, strict=True)]
    widths = [max(len(cells[column]) for cells in table) + 2 for column in range(len(table[0]))]
    for first, *others in table:
        cells = [cell.rjust(max(9, width)) for cell, width in zip(others, widths[1:], strict=True)]
        print(first.ljust(max(28, widths[0])) + "".join(cells))
    for line in further_lines(result):
        print(line)
    if isinstance(result, FoldScores):
        each = ", ".join(f"{name}: {_digits(mean)}" for name, mean in result.folds.items())
        print(
            f"{len(result.folds)} scores on the same cases, not pooled ({each}); mean over folds, standard "
            f"deviation {_digits(result.sd_over_folds)}. `medseg ensemble` joins the folds into one prediction."
        )
    else:
        found = estimate(result)
        print(f"mean Dice {_digits(found.score.mean)}{interval_note(found)}")
        if note := background_note(background_cases(result.cases), len(result.cases)):
            print(f"warning: {note}")
    print(f"mean_dice: {_digits(result.mean_dice, 'nan')}")


def _digits(value: float | None, undefined: str = "-") -> str:
    return undefined if value is None or math.isnan(value) else f"{value:.4f}"


def inferred(settings: PredictSettings, results: Mapping[Path, Sequence[Path]]) -> None:
    from medseg.inferers.prediction_folder import background_predictions
    from medseg.metrics import background_note

    for folder, label_maps in results.items():
        if note := background_note(background_predictions(label_maps), len(label_maps)):
            print(f"warning: {note}")
        print(f"{len(label_maps)} label maps in {folder}")


def joined(settings: EnsembleSettings, result: Scores | None) -> None:
    from medseg.engines.run_facts import read_facts
    from medseg.metrics import background_note

    if result is not None:
        _scores(result)
        return
    facts = read_facts(settings.output)
    if note := background_note(facts.background_predictions or (), facts.predictions or 0):
        print(f"warning: {note}")
    print(f"predictions: {settings.output}/predictions")


def postprocessed(settings: PostprocessSettings, result: Postprocessing) -> None:
    from medseg.reports.tables import digits, markdown_table

    rows = []
    for label, found in result.labels.items():
        for step in found.tried:
            if step.taken or step.mean_difference:
                difference, taken = digits(step.mean_difference, 4, sign=True), "yes" if step.taken else "no"
                rows.append([label, _steps(step.to), str(step.cases), difference, digits(step.p_value), taken])
    if rows:
        print(markdown_table(["label", "steps", "cases", "Dice difference", "p (corrected)", "taken"], rows))
    mean = result.mean_dice
    if mean is None:
        print(f"No step is shown to help on {result.cases} cases; label maps stay as the network gives them.")
        return
    print(f"stored: {'; '.join(f'{label}: {_steps(rule)}' for label, rule in result.rules.items())}")
    biased = "on the cases that the steps were chosen on, so the second is optimistically biased"
    nested = "each fold cleaned by steps that were chosen on the other folds' cases"
    print(
        f"mean Dice {mean.before:.4f} -> {mean.after:.4f}, {nested if mean.nested else biased}. `medseg validate --run "
        f"{settings.run}` scores cleaned predictions from now on."
    )


def chosen(settings: BestSettings, result: Best) -> None:
    from medseg.reports.tables import digits, markdown_table

    rows = []
    for one in result.candidates:
        interval = " to ".join(digits(bound, 4, sign=True) for bound in one.interval)
        difference = "" if one.name == result.name else f"{digits(one.difference, 4, sign=True)} ({interval})"
        seconds = "" if one.seconds_per_case is None else f"{one.seconds_per_case:.2f}"
        rows.append([one.name, digits(one.mean_dice, 4), difference, seconds])
    print(markdown_table(["candidate", "Dice", "minus the chosen (95 %)", "s per case and fold"], rows))
    for place, fold in enumerate(result.folds):
        print(f"without fold {place}: {fold.name}, {_rules(fold.rules)}; Dice on the fold {digits(fold.mean_dice, 4)}")
    nested = result.nested
    print(
        f"mean Dice {digits(nested.mean, 4)} ({digits(nested.low, 4)} to {digits(nested.high, 4)}, {result.subjects} "
        f"subjects): each fold scored with what the other folds choose; {digits(result.mean_dice, 4)} on the cases "
        "that made the choice is optimistically biased."
    )
    print(f"chosen: {result.name}, {_rules(result.rules)}")
    print(f"next: medseg infer --run {shlex.quote(str(settings.output))} --output DIR IMAGE")


def _rules(rules: Mapping[str, Mapping[str, object]]) -> str:
    return "; ".join(f"{label}: {_steps(rule)}" for label, rule in rules.items()) or "no post-processing"


def calibrated(settings: CalibrateSettings, result: Calibration) -> None:
    from medseg.reports.tables import markdown_table

    table = result.table()
    print(markdown_table(table.header, table.rows))
    for note in result.notes():
        print(note)
    print(f"figure: {settings.run}/reliability.png")
    print(f"temperature: {result.temperature:.4f}, fitted on {len(result.cases)} validation cases and stored")


def _steps(rule: Mapping[str, object]) -> str:
    return ", ".join(step if value is True else f"{step} {value:g}" for step, value in rule.items())


def compared(settings: CompareSettings, result: Comparison) -> None:
    from medseg.reports.comparison import comparison_markdown

    print(comparison_markdown(result))
    print(f"\npage: {settings.output}/comparison.html")


def studied(settings: StudySettings, result: StudyResult | list[str]) -> None:
    from medseg.reports.study import study_markdown

    if isinstance(result, list):
        lines(settings, result)
        return
    print(study_markdown(result))
    print(f"\npage: {settings.output}/study.html")


def rescaled(settings: ResolutionSettings, result: Resolution) -> None:
    from medseg.reports.resolution import resolution_markdown

    print(resolution_markdown(result))
    print(f"\nfigure: {settings.output}/resolution.png")


def exported(settings: ExportSettings, result: Deployment) -> None:
    for name, made in result.exports.items():
        taken = made.multiples_of
        print(f"{name}: {made.file} by {made.method}, " + (f"multiples of {taken}" if taken else "one size only"))
        for row in made.parity:
            print(f"  {row.size}: differs by {row.difference:.1e}, largest logit {row.largest_logit:.3g}")
        if made.note:
            print(f"  {made.note}")
    print(f"exported: {settings.output}")


def listed(settings: MakeDatalistSettings, made: MadeDatalist) -> None:
    for note in made.notes:
        print(note)
    for warning in made.warnings:
        print(f"warning: {warning}")
    counts = [f"{n} {name} case{'' if n == 1 else 's'}" for name, n in made.sections.items() if n]
    counts[0] += f" in {made.folds} folds" if made.folds else ""
    print(f"{made.path}: {', '.join(counts)}")
    print(f"its paths are relative to {made.root}")


def exported_nnunet(settings: ExportNnunetSettings, made: ExportedNnunet) -> None:
    for number, (training, validation) in enumerate(made.splits):
        print(f"split {number}: {training} training, {validation} validation cases")
    print(f"test cases: {made.tests}")
    print(f"raw data: {made.raw}")
    print(f"splits: {made.preprocessed}/splits_final.json")


def networks(settings: NetworksSettings, found: list[NetworkFacts] | LayerTable) -> None:
    if not isinstance(found, list):
        _layers(found)
        return
    rows = [(f.name, ",".join(f"{d}D" for d in f.spatial_dims), f"{f.parameters:,}", f.setting, f.paper) for f in found]
    header = ("name", "dims", "parameters", "at", "paper")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for name, dims, parameters, setting, paper in (header, *rows):
        cells = (name.ljust(widths[0]), dims.ljust(widths[1]), parameters.rjust(widths[2]), setting.ljust(widths[3]))
        print("  ".join((*cells, paper)))
    print("MONAI's own classes (SegResNet, DynUNet, SwinUNETR, …) and dotted paths work as --network too.")


def _layers(table: LayerTable) -> None:
    rows = [("layer", "class", "output", "parameters")]
    for layer in table.layers:
        shape = "not called" if layer.output is None else " × ".join(map(str, layer.output))
        rows.append((layer.name or "(itself)", layer.kind, shape, f"{layer.parameters:,}" if layer.parameters else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, kind, shape, number in rows:
        print(f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}  {number:>{widths[3]}}")
    total = sum(layer.parameters for layer in table.layers)
    print(f"{table.network}: {total:,} parameters; an image of {' × '.join(map(str, table.input))}")


def measured(settings: BenchmarkSettings, result: Benchmark | list[CommandFigures]) -> None:
    from medseg.workflows.benchmark_table import benchmark_lines, command_lines

    print("\n".join(command_lines(result) if isinstance(result, list) else benchmark_lines(result)))


def planned(settings: NewBundleSettings, plan: Iterable[Setting]) -> None:
    print("\n".join(setting.line() for setting in plan))
    print(f"bundle: {settings.output}")


def imported(settings: ImportWeightsSettings, report: ImportReport) -> None:
    from medseg.weights.notice import read_notice

    print("\n".join(report.lines()))
    print(read_notice(settings.output).rstrip())
    print(f"written: {settings.output}")


def packed(settings: PackageSettings, members: Iterable[str]) -> None:
    print("\n".join(members))
    print(f"written: {settings.output}")


def prepared(settings: PrepareSettings, result: Prepared) -> None:
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


def examined(settings: DoctorSettings, found: Sequence[Symptom]) -> None:
    """A line per thing that was looked at, or the table for an issue; then what is slow or wrong, and why.

    Raises:
        ResourceError: something is wrong.
    """
    from medseg.errors import ResourceError
    from medseg.reports.tables import markdown_table

    if settings.report:
        print(markdown_table(["", "found", "verdict"], [[one.name, one.value, one.verdict] for one in found]))
    else:
        for one in found:
            print(f"{one.verdict:<6} {one.name:<18} {one.value}" + (f"\n{'':<26}{one.advice}" if one.advice else ""))
    if wrong := [one.name for one in found if one.verdict == "wrong"]:
        raise ResourceError(f"{', '.join(wrong)}: not as medseg needs it; see above for what to do.")
