"""QTSeg's original checkpoints: numbers of the original program, key tables, counts, and what is refused."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from monai.losses import DiceCELoss
from original_numbers import check_published_qtseg, read_full

from medseg.cli import main
from medseg.errors import ConfigError, ModelError
from medseg.networks import QTSeg
from medseg.networks.layers.pyramid_encoder import PyramidEncoder
from medseg.weights import import_original, import_with_report
from medseg.weights.original import qtseg as names
from medseg.workflows import network as with_weights

FIXTURES = FULL_SET / "qtseg"

MQM = {"decoder_model": "MultiQueryMaskDecoder", "bridge_model": "MLFF"}
TINY = {"n_channel": 2, "image_channel": 1, "mask_depths": [1, 1, 1], "mask_num_head": 2, "mask_mlp_dim": 8}

# Section "Complexity" of the description: options besides the published ones, and the count.
COUNTS: list[tuple[dict[str, Any], int]] = [
    ({}, 9_214_850),
    ({"num_classes": 1}, 8_996_354),
    ({"num_classes": 3}, 9_433_346),
    ({"n_channel": 32}, 27_848_882),
    ({"bridge_model": "Identity"}, 8_935_426),
    (MQM, 9_687_184),
    ({**MQM, "num_classes": 1}, 9_468_688),
    ({**MQM, "num_classes": 3}, 9_905_680),
    ({**MQM, "bridge_model": "Identity"}, 9_407_760),
]


def golden(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    arrays = np.load(FIXTURES / f"{name}.npz")
    return json.loads((FIXTURES / f"{name}.json").read_text()), {k: torch.from_numpy(arrays[k]) for k in arrays}


def weights_in(arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key[3:]: value for key, value in arrays.items() if key.startswith("sd/")}


def key_table(name: str) -> dict[str, tuple[int, ...]]:
    lines = (FIXTURES / f"state_dict_keys_{name}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {key: ast.literal_eval(shape) for key, shape, _ in rows}


@pytest.mark.parametrize(("options", "count"), COUNTS)
def test_parameter_counts(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert import_with_report("qtseg", "QTSeg", options)[1].parameters == count


def test_parameters_of_the_parts() -> None:
    with torch.device("meta"):
        dma, mqm = (import_original("qtseg", "QTSeg", options) for options in ({}, MQM))
    expected = {
        "encoder": 2_259_536,
        "bridge": 279_424,
        "encoder.stem": 464,
        "encoder.block2": 49_664,
        "encoder.pool": 164_608,
        "encoder.out4": 493_056,
        "decoder.levels.2.heads": 328_960,
        "decoder.enlarge.1": 32_960,
        "decoder.enlarge.0": 16_672,
    }
    for network in (dma, mqm):
        assert network.get_parameter("decoder.tokens").numel() == 512
        for part, count in expected.items():
            assert sum(p.numel() for p in network.get_submodule(part).parameters()) == count, part


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("name", ["dma_small_binary", "mqm_small_binary"])
def test_numbers_of_the_original(name: str) -> None:
    facts, arrays = golden(name)
    network, report = import_with_report("qtseg", "QTSeg", facts["args"], weights_in(arrays))
    assert isinstance(network, QTSeg) and report.parameters == facts["n_params"] and not report.dropped
    network.eval()
    tolerance = {"rtol": 0, "atol": facts["suggested_tolerance_atol"]}
    with torch.no_grad():
        features = network.encoder(arrays["input"])
        for level, feature in enumerate(features):
            if f"encoder/{level}" in arrays:
                torch.testing.assert_close(feature, arrays[f"encoder/{level}"], **tolerance)
        features = network.bridge(features)
        for level, feature in enumerate(features):
            if f"bridge/{level}" in arrays:
                torch.testing.assert_close(feature, arrays[f"bridge/{level}"], **tolerance)
        if "low_res_masks" in arrays:
            torch.testing.assert_close(network.decoder(features), arrays["low_res_masks"], **tolerance)
        step = facts.get("output_subsample", 1)
        output = network(arrays["input"])[:, :, ::step, ::step]
        torch.testing.assert_close(output, arrays["output_masks"], **tolerance)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("name", ["dma_small_binary", "mqm_small_binary"])
def test_training_of_the_original(name: str) -> None:
    facts, arrays = golden(name)
    network, report = import_with_report("qtseg", "QTSeg", facts["args"], weights_in(arrays))
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1e-6, smooth_dr=1e-6)
    target = arrays["target"][:, None].float()

    x = arrays["input"].clone().requires_grad_()
    value = loss(network.eval()(x), target)
    value.backward()
    assert value.item() == pytest.approx(facts["eval_mode_loss"], abs=1e-5)
    gradients = {theirs: network.get_parameter(ours).grad for ours, theirs in report.taken.items() if _trains(ours)}
    for key, norm in facts["eval_mode_grad_l2"].items():
        assert float(gradients[key].norm()) == pytest.approx(norm, rel=1e-3, abs=1e-6), key
    for key, expected in arrays.items():
        if key.startswith("grad/") and key != "grad/input":
            torch.testing.assert_close(gradients[key[5:]], expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(x.grad, arrays["grad/input"], rtol=1e-3, atol=1e-6)

    network.zero_grad()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=3e-5)
    for step, expected_loss in enumerate(facts["train_mode_adamw"]["losses_before_each_step"]):
        output = network.train()(arrays["input"])
        if step == 0:
            torch.testing.assert_close(output, arrays["train_mode/output_masks"], rtol=1e-3, atol=1e-4)
            norm = network.encoder.stem.norm
            torch.testing.assert_close(norm.running_mean, arrays["train_mode/running_mean_after_1"])
            torch.testing.assert_close(norm.running_var, arrays["train_mode/running_var_after_1"])
        value = loss(output, target)
        assert value.item() == pytest.approx(expected_loss, rel=1e-3)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def _trains(key: str) -> bool:
    return not key.endswith(("running_mean", "running_var", "num_batches_tracked", "frequencies"))


@pytest.mark.usefixtures("full_set")
def test_numbers_of_the_published_size() -> None:
    check_published_qtseg(read_full(FIXTURES / "dma_full_recipe_128"), key_table("qtseg_dma_v0.3.1_2class"))


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize(
    ("table", "options", "count"),
    [
        ("qtseg_dma_v0.3.1_2class", {}, 614),
        ("qtseg_mqm_v0.1.0_2class", MQM, 626),
        ("fpn-nano", None, 270),
    ],
)
def test_key_tables(table: str, options: dict[str, Any] | None, count: int) -> None:
    state = {key: torch.tensor(float(i)).expand(shape) for i, (key, shape) in enumerate(key_table(table).items())}
    architecture = "FPNEncoder" if options is None else "QTSeg"
    network, report = import_with_report("qtseg", architecture, options or {}, state)
    assert len(report.taken) == len(state) == count and not report.dropped
    loaded = network.state_dict()
    for ours, theirs in report.taken.items():
        assert torch.equal(loaded[ours], state[theirs].to(loaded[ours].dtype))


def original_keys(encoder: PyramidEncoder) -> dict[str, torch.Tensor]:
    """An encoder's state dict under YOLOv8's names, by the inverse of the rules."""
    numbers = {layer: number for number, layer in names._LAYERS.items()}
    renamed = {}
    for key, value in encoder.state_dict().items():
        layer, _, rest = key.partition(".")
        rest = rest.replace("split.", "cv1.").replace("merge.", "cv2.").replace("norm.", "bn.")
        rest = rest.replace("chain.", "m.").replace("conv1.", "cv1.").replace("conv2.", "cv2.")
        renamed[f"{numbers[layer]}.{rest}"] = value
    return renamed


def test_encoder_file_of_every_layout() -> None:
    encoder = PyramidEncoder(3, 2)
    plain = original_keys(encoder)
    kinds = {
        number: "sppf" if number == 9 else "c2f" if number in (2, 4, 6, 8, 12, 15, 18, 21) else "conv"
        for number in names._LAYERS
    }
    named = {f"{kinds[int(k.split('.')[0])]}_{k}": v for k, v in plain.items()}
    yolo = {f"model.model.{k}": v.half() if v.is_floating_point() else v for k, v in plain.items()}
    detection = {"model.model.22.cv2.0.0.conv.weight": torch.ones(1)}
    for state, dropped in (
        (named, 0),
        ({f"image_encoder.{k}": v for k, v in named.items()}, 0),
        ({**{f"image_encoder.{k}": v for k, v in named.items()}, "mask_decoder.mask_tokens.weight": torch.ones(1)}, 1),
        ({**yolo, **detection}, 1),
    ):
        loaded, report = import_with_report("qtseg", "FPNEncoder", {"n_channel": 2}, state)
        assert (len(report.taken), len(report.dropped)) == (len(plain), dropped)
        for key, value in encoder.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[f"encoder.{key}"], value, rtol=1e-3, atol=1e-4)
    with pytest.raises(ModelError, match="1 missing"):
        import_original("qtseg", "FPNEncoder", {"n_channel": 2}, dict(list(named.items())[1:]))


def test_loading_is_strict() -> None:
    with pytest.raises(ModelError, match="matches 0 of"):
        import_original("qtseg", "QTSeg", TINY, {"model.0.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="missing"):
        import_original("qtseg", "QTSeg", TINY, {"mask_decoder.mask_tokens.weight": torch.zeros(2, 32)})


def test_arguments_of_the_original() -> None:
    with torch.device("meta"):
        of_run = {**TINY, "model_type": "QTSeg", "epochs": 350, "num_masks": 3, "img_size": 512}
        assert import_with_report("qtseg", "QTSeg", of_run)[1].arguments["out_channels"] == 3
        for arguments, words in (
            ({"n_chanel": 16}, "Did you mean 'n_channel'"),
            ({"decoder_model": "MaskDecode"}, "Did you mean 'MaskDecoder'"),
            ({"encoder_out_features": [64, 128, 512]}, r"\[64, 128, 256\]"),
            ({"mask_num_head": 7}, "num_heads 7"),
        ):
            with pytest.raises(ConfigError, match=words):
                import_original("qtseg", "QTSeg", arguments)


@pytest.mark.usefixtures("full_set")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts, arrays = golden("dma_small_binary")
    config, checkpoint, output = (tmp_path / name for name in ("cfg.json", "weight_last.pt", "model.pt"))
    config.write_text(json.dumps({"model_type": "QTSeg", "epochs": 350, **facts["args"]}))
    torch.save({"epoch": 3, "loss": 0.5, "state_dict_model": weights_in(arrays)}, checkpoint)
    command = ["import-weights", "--system", "qtseg", "--config", str(config), "--checkpoint", str(checkpoint)]
    assert main([*command, "--architecture", "QTSeg", "--output", str(output)]) == 0
    assert "0 dropped" in capsys.readouterr().out
    network = import_original("qtseg", "QTSeg", facts["args"])
    network.load_state_dict(torch.load(output, weights_only=True))
    with torch.no_grad():
        result = network.eval()(arrays["input"])
    torch.testing.assert_close(result, arrays["output_masks"], rtol=0, atol=2e-5)

    assert main([*command, "--architecture", "FPNEncoder", "--output", str(output)]) == 0
    assert "not of the encoder" in capsys.readouterr().out
    start = {"path": str(output), "reinitialize": ["bridge*", "decoder*"]}
    fresh = with_weights(import_original("qtseg", "QTSeg", facts["args"]), "cpu", start)
    for key, value in network.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value) or not key.startswith("encoder.")
    assert main(command) == 2  # the file tells no class
