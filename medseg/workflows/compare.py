"""Compare runs that were validated on the same cases: paired differences with intervals, tests and effect sizes,
beside their cost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.engines.run_files import read_scores
from medseg.errors import ConfigError, DataError
from medseg.metrics import mean_interval
from medseg.metrics.paired import holm, paired_comparison
from medseg.reports.comparison import write_comparison
from medseg.reports.comparison_charts import COSTS
from medseg.storage import whole_file, write_json
from medseg.storage.csv_file import CsvWriter
from medseg.workflows.run_folder import read_facts

__all__ = ["compare", "run_names"]

logger = logging.getLogger("medseg")

_FEW = 10  # cases


def compare(runs: Sequence[str | Path], output: str | Path, *, score: str = "dice") -> dict[str, Any]:
    """Compare every run with the first; writes ``comparison.json``, ``.csv``, ``.md`` and ``.html`` and its figures.

    Args:
        runs: two or more folders with ``metrics.json`` (``medseg validate``, ``medseg ensemble``).
        output: result folder.
        score: ``dice``, ``surface_dice`` or ``hd95``.

    Returns:
        ``cases``, ``labels``, ``warnings``, ``runs`` (name, mean with interval, cost), ``scores`` (run -> label ->
        score per case) and ``comparisons``: per pair and label, and for the mean over labels (``mean``), the figures
        of ``medseg.metrics.paired_comparison`` with Holm-adjusted p-values over all rows.

    Raises:
        ConfigError: fewer than two runs.
        DataError: a run was not validated, or on other cases or another grid.
    """
    folders = [Path(run).resolve() for run in runs]
    if len(folders) < 2:
        raise ConfigError("A comparison needs two or more runs; repeat --run.")
    metrics = [_metrics(folder) for folder in folders]
    cases = _same_cases(folders, metrics)
    names = run_names(folders)
    warnings = _warnings(folders, names, cases)
    labels = list(metrics[0]["labels"])
    table = _scores(metrics, cases, labels, score)
    rows = []
    for name, scores in list(zip(names, table, strict=True))[1:]:
        for target in [*labels, "mean"]:
            figures = paired_comparison(table[0][target], scores[target])
            rows.append({"baseline": names[0], "run": name, "label": target, **figures})
    for row, p_value in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p_value
    summary = [
        {"run": name, **_mean(scores, labels), **_cost(folder)}
        for name, scores, folder in zip(names, table, folders, strict=True)
    ]
    content = {
        "score": score,
        "cases": cases,
        "labels": labels,
        "warnings": warnings,
        "runs": summary,
        "scores": dict(zip(names, table, strict=True)),
        "comparisons": rows,
    }
    target_dir = Path(output)
    write_json(target_dir / "comparison.json", _finite(content))
    table_file = target_dir / "comparison.csv"
    with whole_file(table_file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_comparison(content, target_dir)
    return content


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    if not path.is_file():
        raise DataError(f"{folder} has no metrics.json; run `medseg validate --run {folder}` first.")
    return read_scores(path)


def _same_cases(folders: Sequence[Path], metrics: Sequence[dict[str, Any]]) -> list[str]:
    first = set(metrics[0]["cases"])
    for folder, content in zip(folders[1:], metrics[1:], strict=True):
        other = set(content["cases"])
        if other != first:
            raise DataError(
                f"{folders[0].name} and {folder.name} were validated on different cases ({len(first - other)} "
                f"only in the first, "
                f"{len(other - first)} only in the second); validate both on the same fold."
            )
        if content.get("space") != metrics[0].get("space"):
            raise DataError(
                f"{folder.name} was scored in {content.get('space')} space, {folders[0].name} in "
                f"{metrics[0].get('space')}."
            )
        if list(content["labels"]) != list(metrics[0]["labels"]):
            raise DataError(
                f"{folder.name} and {folders[0].name} have different labels; compare runs of one label space."
            )
    return sorted(first)


def _warnings(folders: Sequence[Path], names: Sequence[str], cases: Sequence[str]) -> list[str]:
    """What makes the comparison unfair; logged as well."""
    facts = [read_facts(folder) for folder in folders]
    found = []
    for name, known in zip(names, facts, strict=True):
        seen = set(cases) & set(known.get("training_cases", []))
        if seen:
            found.append(f"{name} was trained on {len(seen)} of the {len(cases)} cases: the comparison is biased.")
    machines = {known["measured_on"] for known in facts if "measured_on" in known}
    if len(machines) > 1:
        found.append(
            f"Times and memory were measured on different machines or threads ({', '.join(sorted(machines))})."
        )
    if len(cases) < _FEW:
        found.append(f"Only {len(cases)} cases: intervals over so few are too narrow, and tests have little power.")
    for text in found:
        logger.warning("%s", text)
    return found


def run_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with their parents' where two are equal."""
    short = [folder.name for folder in folders]
    return short if len(set(short)) == len(short) else [str(Path(*folder.parts[-2:])) for folder in folders]


def _scores(
    metrics: Sequence[dict[str, Any]], cases: Sequence[str], labels: Sequence[str], score: str
) -> list[dict[str, list[float]]]:
    """Per run: label -> score per case, and ``mean`` over the labels that all runs have a score for in that case."""
    rows = [
        [[_number(content["cases"][case].get(label, {}).get(score)) for case in cases] for label in labels]
        for content in metrics
    ]
    scores = np.array(rows, dtype=float).reshape(len(metrics), len(labels), len(cases))
    shared = np.isfinite(scores).all(axis=0)  # a distance is undefined for the run that misses a label
    totals, counts = np.where(shared, scores, 0.0).sum(axis=1), shared.sum(axis=0)
    means = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    return [
        {**dict(zip(labels, run.tolist(), strict=True)), "mean": mean.tolist()}
        for run, mean in zip(scores, means, strict=True)
    ]


def _mean(scores: dict[str, list[float]], labels: Sequence[str]) -> dict[str, Any]:
    """Mean over labels of the mean over cases, with its interval."""
    found = mean_interval(np.array([scores[label] for label in labels], dtype=float).T)
    return {"mean": found.mean, "interval": (found.low, found.high)}


def _cost(folder: Path) -> dict[str, Any]:
    facts = read_facts(folder)
    return {key: facts[key] for key in ("network", *COSTS, "measured_on", "training_seconds") if key in facts}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
