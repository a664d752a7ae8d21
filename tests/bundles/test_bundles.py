"""Acceptance of every bundle under ``bundles/`` and of a generated one, offline and on CPU."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import jsonschema
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_net_in_out

from medseg.bundle.verify import verify_bundle
from medseg.data.union import is_union
from medseg.labels import BACKGROUND, LabelSpace
from medseg.workflows.new_bundle import new_bundle

ROOT = Path(__file__).parents[2]
BUNDLES = [path.parent.parent for path in sorted((ROOT / "bundles").glob("*/configs/metadata.json"))]
SCHEMA = json.loads((Path(__file__).parent / "metadata_schema.json").read_text())
SMALL = 32  # voxels per axis in what runs a network
# Arguments of a network_def that has them, of the same type; lists are cut to its own length.
LIGHT = {"filters": [4, 8, 8, 8, 8], "feature_size": [4, 4, 8, 8], "hidden_size": 8, "depths": [1, 1, 1, 1]}
LIGHT |= {"width": 4, "num_heads": 4, "mlp_dim": 16}
LIGHT |= {"base_channels": 8, "channels": [16, 32, 64, 64], "heads": [1, 2, 2, 2, 1], "map_tokens": 8}
LIGHT |= {
    "prior_depth": [1] * 5,
    "attention_depth": [1] * 5,
    "fusion_channels": 16,
    "fusion_heads": 2,
    "fusion_depth": 1,
}
# Of those with one width; deep chains of random operators would amplify the last bits of float32.
SHALLOW = {"filters": 4, "num_blocks": 2, "num_convs": [1, 1, 1]}


@pytest.fixture(scope="module", params=[*BUNDLES, None], ids=lambda p: p.name if p else "generated")
def bundle(request, make_datalist, tmp_path_factory) -> Path:
    if request.param is not None:
        return request.param
    folder = tmp_path_factory.mktemp("generated")
    new_bundle(
        network="BasicUNet", json_list=make_datalist(), output=folder, overrides={"network_def::features": [4] * 6}
    )
    return folder


def read(bundle: Path, name: str) -> dict:
    return ConfigParser.load_config_file(str(bundle / "configs" / name))


def metadata(bundle: Path) -> dict:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def test_its_files_are_there(bundle):
    for name in ("LICENSE", "docs/README.md", *(f"configs/{n}.yaml" for n in ("train", "evaluate", "inference"))):
        assert (bundle / name).is_file(), name
    assert not list(bundle.rglob("*.py"))


def test_it_is_accepted_offline(bundle, monkeypatch):
    """The model zoo's rules, each workflow's properties, the network, TorchScript; and no network access."""

    def refuse(*args, **kwargs):
        raise AssertionError("acceptance must not reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    problems = verify_bundle(bundle, light(bundle))
    assert [problem for problem in problems if not problem.warning] == []


def test_its_readme_maps_the_original_commands_to_ours(bundle):
    if bundle not in BUNDLES:
        pytest.skip("a generated bundle has no original")
    lines = (bundle / "docs" / "README.md").read_text().splitlines()
    head = next(number for number, line in enumerate(lines) if re.fullmatch(r"\| original .*\| ours \|", line))
    rows = []
    for line in lines[head + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line)
    assert len(rows) >= 3
    assert any("medseg " in row for row in rows)


def test_its_metadata_follow_the_schema(bundle):
    meta = metadata(bundle)
    jsonschema.validate(meta, SCHEMA)
    assert meta["version"] in meta["changelog"]


def test_its_metadata_say_what_the_config_says(bundle):
    formats = metadata(bundle)["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    inference = read(bundle, "inference.yaml")
    network = inference["network_def"]
    assert image["num_channels"] == len(image["channel_def"]) == network["in_channels"]
    assert pred["num_channels"] == len(pred["channel_def"]) == network["out_channels"]
    assert image["spatial_shape"] == inference["roi_size"]
    assert pred["dtype"] == image["dtype"] == "float32"
    space = LabelSpace.from_table(inference["labels"])
    assert list(pred["channel_def"]) == [str(i) for i in range(network["out_channels"])]
    names = tuple(pred["channel_def"].values())
    if is_union(space):
        assert [names[task] for task in space.task_ids] == list(space.labels)
    else:
        assert names == space.channels and names[0] == BACKGROUND


def test_its_training_config_is_short_and_agrees_with_inference(bundle):
    train, inference = read(bundle, "train.yaml"), read(bundle, "inference.yaml")
    if bundle in BUNDLES:
        text = (bundle / "configs" / "train.yaml").read_text()
        if is_union(LabelSpace.from_table(train["labels"])):
            text = re.sub(r"(?m)^labels:\n(  .*\n)+", "", text)  # a table of many data sets is as long as they are
        assert len(text.splitlines()) <= 95
    for key in ("network_def", "labels", "label_space", "preprocess", "roi_size"):
        assert train[key] == inference[key], key
    assert train.get("overlap") == inference.get("overlap")  # not where images are taken whole


def test_its_yaml_holds_no_trap(bundle):
    for path in (bundle / "configs").glob("*.yaml"):
        text = path.read_text()
        # YAML 1.1 reads 1e-3 as text; MONAI does not import "from a import b" unless b is loaded already
        assert not re.search(r"(?<![\w.])\d+e-?\d", text), path
        assert "from" not in re.findall(r"\$\s*(\w+)", text), path
        for section in ("train", "validate"):
            handlers = (read(bundle, path.name).get(section) or {}).get("handlers", [])
            assert all(isinstance(handler, dict) and "_target_" in handler for handler in handlers)


def light(bundle: Path) -> dict:
    """Overrides that make the network narrow."""
    known = read(bundle, "inference.yaml")["network_def"]
    fitting = {n: v for n, v in (*LIGHT.items(), *SHALLOW.items()) if isinstance(v, type(known.get(n)))}
    cut = {name: value[: len(known[name])] if isinstance(value, list) else value for name, value in fitting.items()}
    return {f"network_def::{name}": value for name, value in cut.items()}


def tiny(bundle: Path, make_datalist) -> dict:
    """Overrides that run a bundle on synthetic cases with its own labels and modality."""
    inference = read(bundle, "inference.yaml")
    channels = tuple(metadata(bundle)["network_data_format"]["inputs"]["image"]["channel_def"].values())
    space = LabelSpace.from_table(inference["labels"])
    shape = (26, 24, 22)[: len(inference["roi_size"])]
    modality = channels if len(shape) == 3 else channels[0]  # a picture is one file
    if is_union(space):  # cases of one of its data sets
        name, fragment = next((n, f) for n, f in space.fragments.items() if len(f.values) == 2)
        values = tuple(raw[0] for raw in fragment.values.values())
        case = {"dataset": name, "modality": next(iter(space.modalities))}
        datalist = make_datalist(
            labels=tuple(fragment.values), values=values, shape=shape, case=case, label_space=dict(inference["labels"])
        )
    else:
        values = tuple(space.decode(np.arange(1, len(space.labels) + 1)).tolist())
        datalist = make_datalist(labels=tuple(space.labels), modality=modality, values=values, shape=shape)
    roi = [SMALL] * len(inference["roi_size"])
    whole = {"preprocess::scale": 1.0} if "scale" in inference["preprocess"] else {}  # the cases are small enough
    overrides = {"json_list": str(datalist), "dataset_dir": str(datalist.parent), "roi_size": roi, "device": "cpu"}
    return overrides | whole


@pytest.mark.parametrize(
    ("files", "kind"), [(["train"], "train"), (["train", "evaluate"], "train"), (["inference"], "infer")]
)
def test_its_properties_are_complete(bundle, files, kind, make_datalist, tmp_path):
    workflow = ConfigWorkflow(
        config_file=[str(bundle / "configs" / f"{name}.yaml") for name in files],
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(bundle),
        output_dir=str(tmp_path),
        **tiny(bundle, make_datalist),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_its_network_takes_and_gives_what_the_metadata_say(bundle, tmp_path):
    meta = metadata(bundle)
    for tensor in (
        meta["network_data_format"][side][name] for side, name in (("inputs", "image"), ("outputs", "pred"))
    ):
        tensor["spatial_shape"] = [SMALL] * len(tensor["spatial_shape"])  # 96^3 takes a CPU half a minute
    small = tmp_path / "metadata.json"
    small.write_text(json.dumps(meta))
    config = str(bundle / "configs" / "inference.yaml")
    settings = {"meta_file": str(small), "config_file": config, "device": "cpu", **light(bundle)}
    verify_net_in_out("network_def", **settings)
    meta["network_data_format"]["outputs"]["pred"]["num_channels"] += 1
    small.write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="output channel number"):
        verify_net_in_out("network_def", **settings)


def test_its_network_is_exported_to_torchscript(bundle, tmp_path):
    config = ConfigParser(read(bundle, "inference.yaml"))
    config.update(light(bundle))
    torch.manual_seed(0)
    network = config.get_parsed_content("network_def").eval()
    shape = (1, config["network_def::in_channels"], *[SMALL] * len(config["roi_size"]))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(tmp_path / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.yaml"),
        **light(bundle),
    )
    image = torch.randn(shape)
    files = {"inference.json": "", "metadata.json": ""}
    exported = torch.jit.load(str(tmp_path / "model.ts"), _extra_files=files)
    with torch.no_grad():
        torch.testing.assert_close(exported(image), network(image), rtol=1e-4, atol=1e-4)
    assert json.loads(files["metadata.json"])["version"] == metadata(bundle)["version"]


def test_every_overlay_applies(bundle):
    files = {path.stem for path in (bundle / "configs").glob("*.yaml")}
    train = ConfigParser()
    for name in sorted(n for n in files - {"train", "inference"} if not n.startswith(("evaluate", "ensemble"))):
        train.read_config([str(bundle / "configs" / f"{n}.yaml") for n in ("train", name)])
        assert train["network_def::_target_"]


def test_the_copied_bundle_runs_from_its_own_folder(bundle, make_datalist, tmp_path, monkeypatch):
    """Stock ``run`` of training, evaluation and inference, as the bundle's README shows it."""
    from monai.bundle import run

    folder = tmp_path / bundle.name
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("eval", "models"))
    monkeypatch.chdir(folder)
    overrides = tiny(bundle, make_datalist) | light(bundle)
    training = {"epochs": 1, "val_interval": 1, "augment::samples_per_case": 1, "repeats": 1, "num_workers": 0}
    training |= {"iterations": 1}
    known = ConfigParser(read(bundle, "train.yaml"))
    training = {key: value for key, value in training.items() if key in known}
    run(config_file="configs/train.yaml", fold="$None", **overrides, **training)
    assert (folder / "models" / "model.pt").is_file()
    run(config_file=["configs/train.yaml", "configs/evaluate.yaml"], fold="$None", **overrides)
    scores = json.loads(next(folder.rglob("metrics.json")).read_text())
    assert list(scores["cases"]) == ["case_4"]
    assert scores["space"] == "source"
    run(config_file="configs/inference.yaml", **overrides)
    assert len(list(folder.rglob("predictions/case_5.*"))) == 1
    if not (folder / "configs" / "ensemble.yaml").is_file():
        return
    shutil.copyfile(folder / "models" / "model.pt", folder / "models" / "second.pt")  # twice the same: nothing changes
    one = next(folder.rglob("predictions/case_5.*"))
    for method in ("mean", "vote"):
        run(config_file=["configs/inference.yaml", "configs/ensemble.yaml"], method=method, **overrides)
        both = next(folder.rglob("predictions_ensemble/case_5.*"))
        share = np.mean(np.asarray(nibabel.load(both).dataobj) == np.asarray(nibabel.load(one).dataobj))
        assert share == 1 if method == "mean" else share > 0.9  # votes are interpolated instead of probabilities
        both.unlink()
