"""The bundles of 3D RepUX-Net and 3D UX-Net: what is particular to them, from import to external test sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from medseg.bundle.compose import load_workflow
from medseg.labels import LabelSpace
from medseg.networks.repuxnet import RepUXNet
from medseg.optimizers import frequency_mask
from medseg.weights import import_original, read_state_dict
from medseg.weights.original import read_config
from medseg.workflows import evaluate, train

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = [f"{network}_{data}_ct_segmentation" for network in ("repuxnet", "uxnet") for data in ("flare21", "amos22")]
FLARE, AMOS = (BUNDLES / f"repuxnet_{data}_ct_segmentation" for data in ("flare21", "amos22"))
ORGANS = ("liver", "kidney", "spleen", "pancreas")
SMALL: dict[str, Any] = {
    "roi_size": [32, 32, 32],
    "epochs": 1,
    "val_interval": 1,
    "num_workers": 0,
    "cache": "cache",
    "augment::samples_per_case": 1,
    "network_def::feature_size": [2, 2, 4, 4],
    "network_def::hidden_size": 4,
    "network_def::depths": [1, 1, 1, 1],
}


def config(bundle: Path, *names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.yaml") for name in names])
    return parser


@pytest.fixture(scope="module")
def run(make_datalist: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny training of the FLARE bundle, whose test section has a label."""
    test = [{"image": "images/case_5.nii.gz", "label": "labels/case_5.nii.gz"}]
    datalist = make_datalist(labels=ORGANS, test=test)
    output = tmp_path_factory.mktemp("flare") / "run"
    return train(bundle=FLARE, output=output, json_list=datalist, device="cpu", overrides=SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_the_original_checkpoint_fits_the_bundles_network(name: str) -> None:
    architecture, constructor = read_config(BUNDLES / name / "configs" / "original.json", "repux")
    with torch.device("meta"):
        imported = import_original("repux", architecture, constructor)
        own = config(BUNDLES / name, "inference").get_parsed_content("network_def")
    shapes = [{key: value.shape for key, value in network.state_dict().items()} for network in (imported, own)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("overlay", "millions"),
    # Of TransBTS's published 31.6 millions 67 072 parameters are never used.
    [("nnunet", 31.2), ("unetr", 92.8), ("swinunetr", 62.2), ("transbts", 31.51), ("nnformer", 149.3)],
)
@pytest.mark.parametrize("name", NAMES[2:])
def test_comparators_have_the_sizes_of_the_published_table(name: str, overlay: str, millions: float) -> None:
    parser = config(BUNDLES / name, "inference", overlay)
    classes = len(LabelSpace.from_table(parser["labels"]).channels)
    assert parser["network_def::out_channels"] == classes
    with torch.device("cpu" if overlay == "swinunetr" else "meta"):  # MONAI's Swin UNETR asks tensors for numbers
        network = parser.get_parsed_content("network_def")
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_kernels_are_trained_in_the_run_and_the_model_holds_their_products(run: Path) -> None:
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["frequency_mode"] == "effective"
    raw = [entry["frequency_raw"] for entry in state["optimizer"]["state"].values() if "frequency_raw" in entry]
    model = read_state_dict(run / "models" / "model.pt")
    kernels = [value for key, value in model.items() if key.endswith(".conv.weight") and key.startswith("stages")]
    assert len(raw) == len(kernels) == 4
    for one, kernel in zip(raw, kernels, strict=True):
        assert torch.equal(one * frequency_mask((21, 21, 21)), kernel)


def test_the_published_protocol_scores_the_test_cases(run: Path) -> None:
    own = evaluate(run, device="cpu")
    before = (run / "metrics.json").read_bytes()
    published = evaluate(run, device="cpu", overlays=["evaluate_published"])
    assert list(own.cases) == ["case_4"]
    assert list(published.cases) == ["case_5"]
    assert set(published.labels) == set(ORGANS)
    assert "hd95" not in published.labels["liver"]
    assert published.facts.role == published.facts.section == "test"
    assert (run / "scores" / "test" / "predictions_published" / "case_5.nii.gz").is_file()
    assert (run / "scores" / "test" / "metrics.json").is_file() and (run / "metrics.json").read_bytes() == before
    evaluator = load_workflow(
        run, "evaluate", {"ckpt_path": str(run / "models" / "model.pt")}, ["evaluate_published"]
    ).parser.get_parsed_content("validate::evaluator")
    inferer = evaluator.inferer.inferer  # whose logits are streamed
    assert (inferer.overlap, str(inferer.mode), inferer.even_spacing) == (0.7, "constant", False)


def test_an_external_set_is_scored_by_its_own_labels(run: Path, make_datalist: Callable[..., Path]) -> None:
    evaluate(run, device="cpu")
    before = (run / "metrics.json").read_bytes()
    external = make_datalist(labels=("kidney", "tumour", "cyst"), shape=(25, 24, 23))
    scores = evaluate(
        run,
        device="cpu",
        overlays=["evaluate_external"],
        overrides={"external": "kits", "json_list": str(external), "dataset_dir": str(external.parent)},
    )
    assert list(scores.labels) == ["kidney"]
    assert list(scores.cases) == [f"case_{number}" for number in range(5)]
    assert scores.facts.others["external"] == "kits"
    assert (run / "external" / "kits" / "metrics.json").is_file()
    assert (run / "metrics.json").read_bytes() == before


def test_every_external_set_maps_to_one_organ() -> None:
    table = config(FLARE, "train", "evaluate", "evaluate_external")["labels"]
    space = LabelSpace.from_table(table)
    assert space.labels == ORGANS
    organs = {
        name: [organ for organ, known in zip(ORGANS, space.annotated(name), strict=True) if known]
        for name in table["datasets"]
    }
    assert organs == {"msd_spleen": ["spleen"], "kits": ["kidney"], "lits": ["liver"], "tcia_pancreas": ["pancreas"]}
    assert space.encode(torch.tensor([0, 1, 2, 3]).numpy(), "kits").tolist() == [0, 2, 2, 2]
    assert space.encode(torch.tensor([0, 1, 2]).numpy(), "lits").tolist() == [0, 1, 1]
    other = LabelSpace.from_table(config(FLARE, "inference", "authors_labels")["labels"])
    assert other.labels == ("spleen", "kidney", "liver", "pancreas")


def test_fine_tuning_keeps_the_kernels_function_and_renews_the_head(
    run: Path, make_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    labels = LabelSpace.from_table(config(AMOS, "train")["labels"]).labels
    tuned = train(
        bundle=AMOS,
        output=tmp_path / "run",
        json_list=make_datalist(labels=labels),
        device="cpu",
        overrides=SMALL | {"learning_rate": 1e-9},
        overlays=["from_flare"],
        transfer=run,
    )
    before, after = (read_state_dict(folder / "models" / "model.pt") for folder in (run, tuned))
    for key, value in before.items():
        if key.startswith("head"):
            assert after[key].shape[0] == 16
        elif "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(after[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_feta_as_an_overlay() -> None:
    parser = config(BUNDLES / "uxnet_flare21_ct_segmentation", "train", "feta21")
    space = LabelSpace.from_table(parser["labels"])
    assert parser["network_def::out_channels"] == space.num_channels == 8
    assert parser["preprocess"]["spacing"] is None
    (step,) = [
        t for t in parser.get_parsed_content("train::preprocessing").transforms if type(t).__name__ == "RandAffined"
    ]
    assert step.rand_affine.rand_affine_grid.rotate_range[2] == pytest.approx(torch.pi / 15)


def test_the_released_programs_mode_as_an_overlay(run: Path) -> None:
    parser = config(FLARE, "train", "as_released")
    parser.update({key: value for key, value in SMALL.items() if key.startswith("network_def")})
    network = parser.get_parsed_content("network")
    optimizer = parser.get_parsed_content("optimizer")
    assert isinstance(network, RepUXNet)
    assert optimizer.param_groups[0]["frequency_mode"] == "as_released"
    before = network.stages[0][0].conv.weight.detach().clone()
    with torch.no_grad():
        network(torch.zeros(2, 1, 32, 32, 32))
    assert torch.equal(network.stages[0][0].conv.weight, before * frequency_mask((21, 21, 21)))


@pytest.mark.parametrize("name", NAMES)
def test_metadata_name_the_reference(name: str) -> None:
    references = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())["references"]
    assert "arXiv" in references[0]
