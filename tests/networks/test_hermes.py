"""Task-conditioned networks: ids, null tasks, modalities, heads, sizes; attention against its formula; export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medseg.errors import ConfigError
from medseg.networks import create_network
from medseg.networks.kernels.channels_last import instance_norm
from medseg.networks.layers.bidirectional_attention import BidirectionalAttention
from medseg.networks.layers.prior_attention import CrossAttention
from medseg.networks.layers.task_conditioned import FixedTasks, TaskConditioned, planned_scales

SMALL: dict[str, dict[str, Any]] = {
    "hermes_resunet": {"base_channels": 8, "num_blocks": [1] * 4, "prior_depth": [1] * 5},
    "hermes_medformer": {
        "base_channels": 4,
        "channels": [8, 16, 16, 24],
        "num_blocks": [1, 0, 0, 0, 0, 0, 1, 1],
        "attention_depth": [1] * 5,
        "heads": [2] * 5,
        "map_tokens": 4,
        "expansion": 2,
        "fusion_depth": 1,
        "fusion_channels": 16,
        "fusion_heads": 2,
    },
}
every = pytest.mark.parametrize("name", SMALL)


def small(name: str, **options: Any) -> TaskConditioned:
    torch.manual_seed(0)
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 5, "num_modalities": 2, "scales": (1, 2, 2, 1)}
    network = create_network(name, **{**arguments, **SMALL[name], **options}).eval()
    assert isinstance(network, TaskConditioned)
    return network


def image(batch: int = 2, size: tuple[int, ...] = (8, 8, 8)) -> torch.Tensor:
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(1))


@every
def test_results_do_not_depend_on_null_tasks_where_they_are_masked(name: str) -> None:
    x, tasks = image(1), torch.tensor([[3, 0]])
    padded = torch.tensor([[3, -1, 0, -1, -1]])
    with torch.no_grad():
        masked = small(name)
        torch.testing.assert_close(masked(x, padded)[:, [0, 2]], masked(x, tasks), rtol=0, atol=1e-4)
        published = small(name, mask_null=False)
        assert not torch.allclose(published(x, padded)[:, [0, 2]], published(x, tasks), atol=1e-3)


@every
def test_images_of_a_batch_do_not_know_each_other(name: str) -> None:
    network, x = small(name), image()
    tasks, modality = torch.tensor([[1, 2, 4], [0, -1, -1]]), torch.tensor([1, -1])
    with torch.no_grad():
        both, kinds = network(x, tasks, modality, return_modality=True)
        one, kind = network(x[1:], tasks[1:, :1], return_modality=True)  # an unknown modality is the default
    assert both.shape == (2, 3, 8, 8, 8) and kinds.shape == (2, 3)
    torch.testing.assert_close(both[1:, :1], one, rtol=0, atol=1e-4)
    torch.testing.assert_close(kinds[1:], kind, rtol=0, atol=1e-4)
    with torch.no_grad():
        other = network(x, tasks, torch.tensor([0, 0]))
    assert not torch.allclose(both[:1], other[:1], atol=1e-3)


@every
def test_no_tasks_means_all(name: str) -> None:
    x = image(1)
    with torch.no_grad():
        network = small(name)
        assert torch.equal(network(x), network(x, torch.arange(5)[None]))
        published = small(name, mask_null=False)  # asked as published: all tasks and one null task
        torch.testing.assert_close(published(x), published(x, torch.tensor([[0, 1, 2, 3, 4, -1]]))[:, :5])


@every
def test_one_row_of_ids_serves_a_batch(name: str) -> None:
    network, x, tasks = small(name), image(), torch.tensor([[2, 4]])
    with torch.no_grad():
        once = network(x, tasks, torch.tensor([1]))
        torch.testing.assert_close(once, network(x, tasks.expand(2, -1), torch.tensor([1, 1])))


@every
def test_bad_ids(name: str) -> None:
    network, x = small(name), image()
    for tasks, modality, words in (
        (torch.tensor([[5]]), None, "tasks holds id 5, but the network has 5, from 0"),
        (torch.tensor([[0]]), torch.tensor([2]), "modality holds id 2"),
        (torch.tensor([0, 1]), None, r"tasks has shape \(2,\) for 2 images; expected \(batch, tasks\)"),
        (torch.zeros(3, 1, dtype=torch.long), None, r"tasks has shape \(3, 1\) for 2"),
        (None, torch.tensor([[0], [1]]), "modality has shape"),
    ):
        with pytest.raises(ConfigError, match=words):
            network(x, tasks, modality)
    with pytest.raises(ConfigError, match="tells no modality"):
        small(name, num_modalities=0)(x, return_modality=True)
    with pytest.raises(ConfigError, match="spatial_dims is 4"):
        small(name, spatial_dims=4)


@every
def test_small_and_odd_sizes(name: str) -> None:
    with torch.no_grad():
        for size in ((1, 1, 1), (4, 4, 4), (3, 5, 9)):
            y = small(name, scales=(2, 2, 1, 2))(image(1, size))
            assert y.shape == (1, 5, *size) and y.isfinite().all()


def test_strided_levels_round_sizes_up() -> None:
    network = small("hermes_resunet", pool=False, scales=((2, 2, 1), 2, 1, 2))
    assert network.padded_size([5, 9, 3]) == [5, 9, 3]  # the original takes any size, so nothing may be padded
    assert network.padded_size([8, 8, 4]) == [8, 8, 8]
    with torch.no_grad():
        assert network(image(1, (5, 9, 3))).shape == (1, 5, 5, 9, 3)


@every
def test_heads(name: str) -> None:
    network, x = small(name).train(), image(1)
    logits, _ = network(x, return_modality=True)
    if name == "hermes_resunet":
        assert isinstance(logits, torch.Tensor)
        return
    assert [head.shape for head in logits] == [(1, 5, 8, 8, 8)] * 2
    assert isinstance(network.eval()(x), torch.Tensor)
    assert isinstance(small(name, deep_supervision=False).train()(x), torch.Tensor)


def test_planes_are_volumes_of_one_slice() -> None:
    flat = small("hermes_resunet", spatial_dims=2)
    scales = [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 1, 1)]
    solid = small("hermes_resunet", kernel_size=[(1, 3, 3)] * 5, scales=scales)
    solid.load_state_dict(flat.state_dict())
    x = image(1, (8, 12))
    with torch.no_grad():
        assert torch.equal(flat(x), solid(x[:, :, None])[:, :, 0])


def test_cross_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    layer, a, b = CrossAttention(64), torch.randn(1, 3, 64), torch.randn(1, 5, 64)
    q = layer.to_queries(layer.norm_queries(a)).view(3, 2, 32)
    k, v = (part.view(5, 2, 32) for part in layer.to_keys_values(layer.norm_context(b))[0].chunk(2, -1))
    weights = torch.softmax(torch.einsum("nhc,mhc->hnm", q, k) / 32**0.5, -1)
    expected = layer.to_out(torch.einsum("hnm,mhc->nhc", weights, v).reshape(3, 64))
    torch.testing.assert_close(layer(a, b)[0], expected, rtol=1e-4, atol=1e-5)
    seen = torch.tensor([True, False, True, True, False]).view(1, 1, 1, 5)
    torch.testing.assert_close(layer(a, b, seen), layer(a, b[:, seen[0, 0, 0]]), rtol=1e-4, atol=1e-5)


def test_bidirectional_attention_shares_its_scores() -> None:
    """One matrix of scores, softmax over tokens for the features, over voxels for the tokens; heads fastest."""
    torch.manual_seed(0)
    layer = BidirectionalAttention(6, 8, 2, kernel_size=(3, 3, 3), expansion=2)
    x, tokens = torch.randn(1, 6, 2, 3, 4), torch.randn(1, 5, 8)
    fq, fv = layer.feature_queries_values(instance_norm(x)).flatten(2)[0].chunk(2)
    tq, tv = layer.token_queries_values(layer.norm_tokens(tokens))[0].chunk(2, -1)
    scores = torch.einsum("chn,mch->hnm", fq.view(4, 2, 24), tq.view(5, 4, 2)) / 2
    features = torch.einsum("hnm,mch->chn", scores.softmax(-1), tv.view(5, 4, 2)).reshape(1, 8, 2, 3, 4)
    told = torch.einsum("hnm,chn->mch", scores.softmax(1), fv.view(4, 2, 24)).reshape(1, 5, 8)
    y = layer.feature_out(features) + layer.shortcut(F.relu(instance_norm(x, eps=1e-4)))
    found, after = layer(x, tokens)
    torch.testing.assert_close(found, layer.bottleneck(y), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, tokens + layer.token_out(told), rtol=1e-4, atol=1e-5)


def test_planned_scales() -> None:
    assert planned_scales((96, 96, 96), None) == [[2, 2, 2]] * 4
    assert planned_scales((16, 16, 16), (1, 1, 1)) == [[2, 2, 2]] * 2 + [[1, 1, 1]] * 2
    assert planned_scales((64, 64, 16), (1.0, 1.0, 5.0)) == [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]


# ---------------------------------------------------------------------- a fixed set of tasks
@every
@pytest.mark.parametrize("mask_null", [True, False])
def test_fixed_tasks(name: str, mask_null: bool) -> None:
    network, x = small(name, mask_null=mask_null), image()
    ids = [[3, 1]] if mask_null else [[3, 1, -1]]
    with torch.no_grad():
        asked = FixedTasks(network, [3, 1], 1)(x)
        assert torch.equal(asked, network(x, torch.tensor(ids), torch.tensor([1]))[:, :2])
    assert not FixedTasks(network, [3, 1]).state_dict().keys() & {"tasks", "modality"}


@every
def test_export_and_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    asked, x = FixedTasks(small(name, mask_null=False), [3, 1], 1).eval(), image(1)
    with torch.no_grad():
        expected = asked(x)
        exported = torch.export.export(asked, (x,))
        torch.testing.assert_close(exported.module()(x), expected, rtol=1e-3, atol=1e-4)
        path = tmp_path / "network.onnx"
        torch.onnx.export(exported, (), path, input_names=["image"], output_names=["logits"], verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": x.numpy()})[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["hermes_resunet", "hermes_medformer"])
def test_added_tasks_leave_old_ones(name: str) -> None:
    torch.manual_seed(0)
    network = create_network(
        name, spatial_dims=3, in_channels=1, out_channels=2, num_modalities=1, **SMALL[name]
    ).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        before = network(image, torch.tensor([[0, 1, -1]]))
        assert [*network.add_tasks(2, like=1)] == [2, 3]
        assert torch.equal(network(image, torch.tensor([[0, 1, -1]])), before)
        assert torch.equal(network(image, torch.tensor([[0, 3, -1]])), before)  # as yet, task 3 is like task 1
        assert network(image).shape[1] == 4
    with pytest.raises(ConfigError, match="like=9"):
        network.add_tasks(1, like=9)
