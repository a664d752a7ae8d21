"""Commands are functions of one settings value, whose class describes every option."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re

import pytest

from medseg.settings import takes

COMMANDS = (
    ("medseg.workflows.training", "train", "TrainSettings"),
    ("medseg.workflows.evaluation", "evaluate", "EvaluateSettings"),
    ("medseg.workflows.postprocessing", "postprocess", "PostprocessSettings"),
    ("medseg.workflows.prediction", "predict", "PredictSettings"),
    ("medseg.workflows.ensemble", "ensemble", "EnsembleSettings"),
    ("medseg.workflows.submission", "submit", "SubmitSettings"),
    ("medseg.workflows.benchmark", "benchmark", "BenchmarkSettings"),
    ("medseg.workflows.compare", "compare", "CompareSettings"),
    ("medseg.workflows.resolution", "resolution", "ResolutionSettings"),
    ("medseg.reports.report", "write_report", "ReportSettings"),
    ("medseg.workflows.export", "export", "ExportSettings"),
    ("medseg.reports.priors", "write_prior_picture", "PriorsSettings"),
    ("medseg.workflows.checks", "check_datalist", "CheckSettings"),
    ("medseg.data.make_datalist", "make_datalist", "MakeDatalistSettings"),
    ("medseg.networks.catalog", "networks", "NetworksSettings"),
    ("medseg.workflows.new_bundle", "new_bundle", "NewBundleSettings"),
    ("medseg.weights.importing", "import_weights", "ImportWeightsSettings"),
    ("medseg.data.phantom", "write_phantom", "PhantomSettings"),
    ("medseg.bundle.package", "package", "PackageSettings"),
    ("medseg.bundle.package", "unpack", "UnpackSettings"),
)


@dataclasses.dataclass(frozen=True)
class AddSettings:
    """What is added.

    Attributes:
        first: number.
        second: number (default 1).
    """

    first: int
    _: dataclasses.KW_ONLY
    second: int = 1


@takes(AddSettings)
def add(s: AddSettings) -> int:
    """The sum."""
    return s.first + s.second


def test_a_command_takes_fields_or_a_value() -> None:
    assert add(2, second=3) == add.of(AddSettings(2, second=3)) == 5
    assert str(inspect.signature(add)) == "(first: 'int', *, second: 'int' = 1) -> 'int'"
    assert inspect.getdoc(add) == f"The sum.\n\n{inspect.getdoc(AddSettings)}"
    with pytest.raises(TypeError, match="third"):
        add(2, third=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(("module", "function", "settings"), COMMANDS)
def test_every_field_is_described_once(module: str, function: str, settings: str) -> None:
    command, described_by = (getattr(importlib.import_module(module), name) for name in (function, settings))
    fields = [field.name for field in dataclasses.fields(described_by)]
    assert sorted(inspect.signature(command).parameters) == sorted(fields)
    described = (inspect.getdoc(described_by) or "").partition("Attributes:\n")[2]
    assert re.findall(r"^    (\w+): \S", described, re.MULTILINE) == fields
