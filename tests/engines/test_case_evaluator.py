"""Case by case: what fails is noted, what cannot succeed ends the run, and no case is missed in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.metrics import Metric
from monai.data import MetaTensor, ThreadDataLoader
from monai.handlers import MeanIoUHandler
from monai.transforms import Compose

from medseg.data import CaseDataset
from medseg.engines import CaseEvaluator, run_cases
from medseg.errors import CasesFailed, ConfigError, DataError, ResourceError
from medseg.inferers import Streamed, WholeVolume
from medseg.labels import LabelSpace
from medseg.transforms import ToSourceGridd

IDS = ("a", "b", "c", "d", "e", "f")


class Network(torch.nn.Module):
    """Returns its input; what is 2 fails, what is 5 is a fault of the config."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.max() == 2:
            raise RuntimeError("no luck\nand a trace")
        if x.max() == 5:
            raise ConfigError("overlap 2 is outside [0, 1).")
        return x


def _read(values: dict[str, float], broken: str) -> Callable[[Any], Any]:
    def transform(data: dict[str, Any]) -> dict[str, Any]:
        if data["case_id"] == broken:
            raise DataError("the file is damaged.")
        return {**data, "image": MetaTensor(torch.full((1, 4, 4), values[data["case_id"]]))}

    return transform


def _evaluator(values: dict[str, float], broken: str = "", **settings: Any) -> CaseEvaluator:
    dataset = CaseDataset([{"case_id": case} for case in values], _read(values, broken))
    loader = ThreadDataLoader(dataset, batch_size=1, num_workers=0, buffer_size=1)
    return CaseEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=Network(), **settings)


def test_metrics_of_no_case_hide_no_failure(tmp_path: Path) -> None:
    metric = {"mean_iou": MeanIoUHandler()}
    evaluator = _evaluator({"b": 0.0}, "b", key_val_metric=metric)
    with pytest.raises(CasesFailed, match="1 of 1 cases failed.*b: the file is damaged"):
        run_cases(evaluator, tmp_path)


@pytest.mark.parametrize("behind", [0, 2])
def test_a_case_that_fails_anywhere_leaves_the_others_alone(behind: int, tmp_path: Path) -> None:
    """In reading (b), in the network (c), in post-processing (d), and when it is handed on (e)."""
    done = []

    def post(data: dict[str, Any]) -> dict[str, Any]:
        if data["case_id"] == "d":
            raise OSError(28, "No space left on device", "/out/d.nii.gz")
        return {**data, "pred": data["pred"] + 1}

    def note(data: Any) -> None:
        if data["case_id"] == "e":
            raise DataError("e cannot be recorded.")
        done.append((data["case_id"], float(data["pred"].max())))

    evaluator = _evaluator({case: float(case == "c") * 2 for case in IDS}, "b", postprocessing=post, behind=behind)
    evaluator.done = note
    with pytest.raises(CasesFailed, match="4 of 6 cases failed"):
        run_cases(evaluator, tmp_path)
    failures = json.loads((tmp_path / "failures.json").read_text())
    assert sorted(failures) == ["b", "c", "d", "e"]
    assert (failures["b"], failures["c"]) == ("the file is damaged.", "no luck")
    assert "/out/d.nii.gz: the disk is full" in failures["d"]
    assert done == [("a", 1.0), ("f", 1.0)]
    evaluator.data_loader.dataset.data = [{"case_id": "a"}, {"case_id": "f"}]
    evaluator.state.epoch_length = 2
    run_cases(evaluator, tmp_path)  # the engine runs again
    assert done[2:] == done[:2]


def test_failures_of_other_cases_stay_beside_predictions_and_not_beside_scores(tmp_path: Path) -> None:
    listed = tmp_path / "failures.json"
    listed.write_text('{"a": "was damaged", "z": "is damaged"}')
    run_cases(_evaluator({"a": 0.0}), tmp_path)
    assert json.loads(listed.read_text()) == {"z": "is damaged"}
    run_cases(_evaluator({"a": 0.0}, key_val_metric={"pairs": _Pairs()}), tmp_path)
    assert not listed.exists()
    listed.write_text("cut short")
    run_cases(_evaluator({"a": 0.0}), tmp_path)
    assert not listed.exists()


@pytest.mark.parametrize("part", [{"inferer": None}, {"postprocessing": []}, {"postprocessing": None}])
def test_a_part_that_is_no_component_is_named_before_the_first_case(part: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"evaluator's {next(iter(part))} is (None|\\[\\]); expected a component"):
        _evaluator({"a": 0.0}, **part)
    with pytest.raises(ConfigError, match="transform is None; expected a component"):
        CaseDataset([], None)


def test_a_fault_of_the_config_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overlap 2"):
        run_cases(_evaluator({"a": 5.0, "b": 0.0}), tmp_path)


class _Pairs(Metric):
    """Ids of the cases that were scored."""

    def reset(self) -> None:
        self.ids: list[str] = []

    def update(self, output: Any) -> None: ...

    def iteration_completed(self, engine: Any, *_: Any) -> None:
        self.ids += [item["case_id"] for item, _ in zip(engine.state.batch, engine.state.output, strict=True)]

    def compute(self) -> float:
        return float(len(self.ids))


def test_metrics_see_the_cases_that_were_done(tmp_path: Path) -> None:
    metric = _Pairs()
    evaluator = _evaluator({"a": 2.0, "b": 0.0, "c": 2.0}, key_val_metric={"pairs": metric})
    with pytest.raises(CasesFailed, match="2 of 3 cases failed"):
        run_cases(evaluator, tmp_path)
    assert metric.ids == ["b"]
    with pytest.raises(ConfigError, match="use 0 with metrics"):
        _evaluator({"a": 0.0}, key_val_metric={"pairs": metric}, behind=1)


def test_a_loader_that_ends_early_is_noticed(tmp_path: Path) -> None:
    """MONAI's thread dies without an error, and ignite begins again: 0 1 0 1 0 1 of six cases."""
    evaluator = _evaluator(dict.fromkeys(IDS, 0.0))

    def dying(index: int) -> dict[str, Any]:
        if index == 2:
            raise MemoryError
        return {"case_id": IDS[index], "image": torch.zeros(1, 4, 4)}

    evaluator.data_loader.dataset._transform = dying
    with pytest.raises(ResourceError, match="not the 6 asked for"):
        run_cases(evaluator, tmp_path)


@pytest.mark.parametrize("behind", [0, 1])
def test_label_maps_are_made_as_the_logits_come(behind: int) -> None:
    """Without anything waiting behind; the result is the same."""
    space = LabelSpace.from_table({"labels": {"background": 0, "a": 1}})
    loading = Compose([_read({"a": 0.0, "b": 1.0}, "")])
    steps = Compose([ToSourceGridd("pred", loading, space)])
    evaluator = _evaluator({"a": 0.0, "b": 1.0}, inferer=WholeVolume(), postprocessing=steps, behind=behind)
    found = {}
    evaluator.done = lambda data: found.update({data["case_id"]: data["pred"]})
    evaluator.run()
    assert isinstance(evaluator.inferer, Streamed) == (behind == 0)
    assert {case: (tuple(pred.shape), pred.dtype) for case, pred in found.items()} == {
        case: ((1, 4, 4), torch.uint8) for case in "ab"
    }
