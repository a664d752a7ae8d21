"""A benchmark's result as lines of Markdown, for a terminal and for a README."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.reports.tables import grouped, markdown_table, scaled
from medseg.workflows.benchmark_result import Benchmark, Circumstances, CommandFigures, NetworkFigures, StepFigures

__all__ = ["benchmark_lines", "command_lines"]

_TITLES = {"forward": "Forward pass", "train": "Training step"}


def benchmark_lines(result: Benchmark) -> list[str]:
    """One table per step, then what was not counted, how parameters agree with the catalogue, and the conditions."""
    lines: list[str] = []
    for step, meaning in result.conventions.steps.items():
        header = ["network", "parameters", "multiply-adds, G", "time, ms (95 %)", "ratio (95 %)", "peak memory, MiB"]
        rows = [_row(entry, entry.steps[step]) for entry in result.networks]
        lines += [f"{_TITLES[step]} ({meaning}):", "", markdown_table(header, rows), ""]
        for entry in result.networks:
            if entry.steps[step].not_counted:
                lines.append(f"{entry.name}: multiply-adds without {', '.join(entry.steps[step].not_counted)}.")
    lines += [note for entry in result.networks if (note := _catalogue_note(entry))]
    return [*lines, _conditions(result.conditions), result.conventions.multiply_adds,
            f"Peak memory: {result.conventions.peak_memory_bytes}"]  # fmt: skip


def command_lines(rows: Sequence[CommandFigures]) -> list[str]:
    """One table: CPU seconds of whole commands, of their networks alone and of the import of torch; and memory."""
    header = ["command", "patches", "CPU, s", "wall, s", "network, s", "import torch, s", "ratio", "peak, MiB"]
    header += ["above imports, volumes"]
    cells = [
        [
            row.name,
            str(row.patches),
            *(scaled(v) for v in (row.command.cpu_seconds, row.command.wall_seconds)),
            *(scaled(v) for v in (row.network_seconds, row.import_seconds, row.ratio)),
            scaled(row.command.peak_bytes, 2**20),
            scaled(row.volumes),
        ]
        for row in rows
    ]
    return [markdown_table(header, cells), "",
            "Medians. CPU: user and system time of the command's processes; ratio: over network plus import.",
            "Volumes: peak above a process that imported the command's modules, over it in float32."]  # fmt: skip


def _row(entry: NetworkFigures, measured: StepFigures) -> list[str]:
    return [
        entry.name,
        grouped(entry.parameters),
        scaled(measured.multiply_adds, 1e9),
        _with_bounds(measured.seconds, 1e-3),
        "1" if set(measured.ratio) == {1.0} else _with_bounds(measured.ratio),
        scaled(measured.peak_memory_bytes, 2**20),
    ]


def _with_bounds(triple: Sequence[float], unit: float = 1.0) -> str:
    return f"{scaled(triple[0], unit)} ({scaled(triple[1], unit)} – {scaled(triple[2], unit)})"


def _catalogue_note(entry: NetworkFigures) -> str:
    published = entry.published
    if published is None or published.parameters == entry.parameters:
        return ""
    return f"{entry.name}: as published ({published.setting}) {grouped(published.parameters)} parameters."


def _conditions(conditions: Circumstances) -> str:
    size = " × ".join(map(str, conditions.size))
    threads = "1 thread" if conditions.threads == 1 else f"{conditions.threads} threads"
    return (
        f"Conditions: input {conditions.batch_size} × {conditions.in_channels} × {size}, "
        f"{conditions.out_channels} output channels, {conditions.arguments} networks, {conditions.precision}, "
        f"{conditions.device_name} ({conditions.device}, {threads}, load {conditions.load_average} at the "
        f"start), torch {conditions.torch}, {conditions.repeats} turns."
    )
