"""Ensembles of members with different grids, against MONAI's own evaluator and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import EnsembleEvaluator
from monai.inferers import SimpleInferer
from monai.networks.nets import UNet
from monai.transforms import Compose, MeanEnsembled, Orientationd, Spacingd, SpatialPadd, VoteEnsembled
from torch import nn

from medseg.errors import ConfigError
from medseg.inferers import Ensemble, Member, SlidingWindow
from medseg.inferers.saved import SavedMember
from medseg.labels import LabelSpace

SPACE = LabelSpace.from_table({"background": 0, "a": 1, "b": 2})
AFFINE = np.array([[0.0, -1.5, 0.0, 3.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def _member(seed: int, spacing: float, roi: int, space: LabelSpace = SPACE, grid: str | None = None) -> Member:
    torch.manual_seed(seed)
    network = UNet(3, 1, space.num_channels, channels=(4, 8), strides=(2,))
    steps = [
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=(spacing,) * 3, mode="bilinear"),
        SpatialPadd("image", spatial_size=(roi,) * 3),
    ]
    return Member(network, Compose(steps), SlidingWindow((roi,) * 3), space, grid)


@pytest.fixture
def members() -> list[Member]:
    return [_member(0, 1.0, 16), _member(1, 1.5, 8), _member(2, 2.0, 12)]


@pytest.fixture
def image() -> MetaTensor:
    torch.manual_seed(9)
    return MetaTensor(torch.randn(1, 12, 14, 10), affine=torch.from_numpy(AFFINE))


def _batch(image: MetaTensor) -> torch.Tensor:
    return next(iter(DataLoader(Dataset([{"image": image}]), batch_size=1)))["image"]


def test_a_member_answers_on_the_source_grid(members: list[Member], image: MetaTensor) -> None:
    probabilities = members[1](_batch(image))
    assert probabilities.shape == (1, 3, 12, 14, 10)
    assert probabilities.min() >= 0
    inside = probabilities.sum(1)
    assert inside.max() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_equals_monais_ensemble_evaluator(members: list[Member], image: MetaTensor, method: str) -> None:
    weights = [0.5, 0.3, 0.2]
    ours = Ensemble(members, method, weights)(_batch(image)).argmax(1)
    keys = ["pred_0", "pred_1", "pred_2"]
    join = (
        MeanEnsembled(keys, output_key="pred", weights=weights)
        if method == "mean"
        else VoteEnsembled(keys, output_key="pred", num_classes=3)
    )
    evaluator = EnsembleEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": image}]), batch_size=1),
        networks=members,
        inferer=SimpleInferer(),
        pred_keys=keys,
        postprocessing=Compose([join]) if method == "mean" else Compose([_argmax, join]),
    )
    evaluator.run()
    theirs = evaluator.state.output[0]["pred"]
    if method == "mean":
        assert torch.equal(theirs.argmax(0), ours[0])
        return
    equal = Ensemble(members, method)(_batch(image)).argmax(1)  # MONAI's votes have no weights
    assert torch.equal(torch.as_tensor(theirs)[0].long(), equal[0])


def _argmax(data: dict) -> dict:
    return {**data, **{key: data[key].argmax(0, keepdim=True) for key in ("pred_0", "pred_1", "pred_2")}}


def test_images_of_another_device_are_prepared_on_the_cpu(
    members: list[Member], image: MetaTensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _batch(image)
    expected = members[1].prepare(batch)
    monkeypatch.setattr(MetaTensor, "cpu", lambda self: MetaTensor(batch[0], meta=self.meta), raising=False)
    elsewhere = MetaTensor(batch.as_tensor().to("meta"), meta=batch.meta)
    found = members[1].prepare(elsewhere)
    assert torch.equal(found, expected)
    assert SavedMember(Path(), SPACE).prepare(elsewhere).device.type == "cpu"


def test_weights_are_normalised_and_a_single_member_is_itself(members: list[Member], image: MetaTensor) -> None:
    batch = _batch(image)
    torch.testing.assert_close(Ensemble(members, weights=[2, 2, 2])(batch), Ensemble(members)(batch))
    torch.testing.assert_close(Ensemble(members[:1])(batch), members[0](batch))
    torch.testing.assert_close(Ensemble(members, weights=[0, 1, 0])(batch), members[1](batch))


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_members_of_one_grid_are_prepared_once_with_an_equal_result(image: MetaTensor, method: str) -> None:
    """Three members, two of them on one grid, given apart and together."""
    settings = [(0, 1.5, 8), (1, 1.0, 12), (2, 1.5, 8)]
    apart = Ensemble([_member(*each) for each in settings], method, [3, 2, 1])
    together = Ensemble([_member(*each, grid=str(each[1:])) for each in settings], method, [3, 2, 1])
    prepared = []
    for member in together.members:
        original = member.prepare
        member.prepare = lambda image, original=original: prepared.append(1) or original(image)
    result = together(_batch(image))
    assert len(prepared) == 2
    torch.testing.assert_close(result, apart(_batch(image)), rtol=1e-5, atol=1e-6)


def test_the_lower_class_wins_a_tied_vote() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self, winner: int) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(winner), 3).float())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits[None, :, None, None, None].expand(len(x), 3, *x.shape[2:])

    def vote(*winners: int) -> int:
        members = [
            Member(Fixed(w), Compose([SpatialPadd("image", (2, 2, 2))]), SimpleInferer(), SPACE) for w in winners
        ]
        image = MetaTensor(torch.zeros(1, 2, 2, 2))
        labels = Ensemble(members, "vote")(_batch(image)).argmax(1).unique()
        assert len(labels) == 1
        return int(labels)

    assert vote(2, 1) == vote(1, 2) == 1
    assert vote(2, 0, 1, 2, 0) == 0
    assert vote(2, 1, 2) == 2


def test_what_does_not_fit_is_refused(members: list[Member]) -> None:
    other = _member(3, 1.0, 8, LabelSpace.from_table({"background": 0, "x": 1}))
    for arguments, sentence in (
        (([],), "at least one"),
        ((members, "median"), "unknown"),
        ((members, "mean", [1.0]), "1 weights"),
        ((members, "mean", [1.0, -1.0, 1.0]), "positive"),
        (([members[0], other],), "different labels"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            Ensemble(*arguments)


@torch.no_grad()
def test_members_that_share_a_network_come_in_step(image: MetaTensor) -> None:
    """The mean of one grid makes label maps piece by piece; each piece has the weights of its member."""
    torch.manual_seed(0)
    space = LabelSpace.from_table({"labels": {"background": 0, **{f"l{i}": i for i in range(1, 8)}}})
    shared = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 8, 1))
    states = [{k: 3 * torch.randn_like(v) for k, v in shared.state_dict().items()} for _ in range(3)]
    loaded: list[int] = []

    def member(number: int) -> Member:
        def load() -> None:
            loaded.append(number)
            shared.load_state_dict(states[number])

        steps = [Spacingd("image", pixdim=(0.4, 0.8, 0.8), mode="bilinear", padding_mode="border")]
        return Member(shared, Compose(steps), SlidingWindow((8, 8, 8)), space, "one", load)

    ensemble = Ensemble([member(number) for number in range(3)], weights=[3, 2, 1])
    labels = ensemble.labels(_batch(image))
    apart = sum(w * m(_batch(image)) for w, m in zip(ensemble.weights, ensemble.members, strict=True))
    assert torch.equal(labels[0], apart[0].argmax(0).to(torch.uint8))
    assert torch.allclose(labels.affine, image.affine)
    assert len(labels.unique()) > 4 and loaded[:6] == [0, 1, 2] * 2  # once per row of patches


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_label_maps_of_several_grids(members: list[Member], image: MetaTensor, method: str) -> None:
    ensemble = Ensemble(members, method)
    labels = ensemble.labels(_batch(image))
    assert torch.equal(labels, ensemble(_batch(image)).argmax(1).to(torch.int16))
    assert torch.allclose(labels.affine, image.affine)
