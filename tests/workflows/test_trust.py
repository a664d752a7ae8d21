"""A bundle from elsewhere runs nothing that its reader has not allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from torch import nn

from medseg.errors import ModelError
from medseg.workflows.compose import load_workflow, merged_config
from medseg.workflows.trust import foreign_code, trusted_bundles

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/configs"))


class Own(nn.Module):
    """A network of the user's own."""


IMPORT = "$import medseg.workflows as w"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_our_own_bundles_need_no_permission(bundle: Path) -> None:
    train, evaluate, inference = (bundle / "configs" / f"{name}.yaml" for name in ("train", "evaluate", "inference"))
    overlays = [p for p in (bundle / "configs").glob("*.yaml") if p not in (train, evaluate, inference)]
    below = {p: [train, evaluate] if p.stem.startswith(("evaluate", "external")) else [train] for p in overlays}
    for files in ([train], [train, evaluate], [inference], *([*below[p], p] for p in overlays)):
        assert foreign_code(merged_config(files)) == [], files


@pytest.mark.parametrize(
    "text",
    [
        "$__import__('os').system('true')",
        "$import os",
        "$from os import system",
        "$import medseg.cli as w",
        "$w.parts.os.system('true')",
        "$w.__builtins__",
        "$(lambda f: f)(w)",
        "$open('/etc/passwd').read()",
        "$eval('1')",
        "$torch.load('x.pt', weights_only=False)",
        "$@network.__class__",
        "$'{0.__class__}'.__class__",
        "$[c for c in ().__class__.__mro__]",
        "$exec",
        "$1; 2",
        "%/etc/evil.json::x",
    ],
)
def test_foreign_texts_are_found(text: str) -> None:
    assert foreign_code({"imports": [IMPORT], "x": text}) == [text]


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.Popen", "builtins.eval", "torch.load", "torch.hub.load", "run_cmd", "monai.utils.run_cmd"]
    + ["monai.apps.DecathlonDataset", "medseg.cli.main", "medseg.weights.save_file", "$eval", "no.such.module.X"],
)
def test_foreign_targets_are_found(target: str) -> None:
    assert foreign_code({"x": {"_target_": target}}) == [target]


@pytest.mark.parametrize(
    "text",
    [
        IMPORT,
        "$@network.to(@device)",
        "$[x + 1 for x in @roi_size]",
        "$@epochs * len(@train::dataloader)",
        "$w.cases(@json_list, @dataset_dir, @fold, 'training')",
        "$'fp16' if str(@device).startswith('cuda') else 'fp32'",
        "%train::inferer",
        "plain text, $5",
    ],
)
def test_plain_expressions_pass(text: str) -> None:
    assert foreign_code({"imports": [IMPORT], "x": text}) == []


@pytest.mark.parametrize(
    "target",
    ["SegResNet", "monai.networks.nets.SwinUNETR", "medseg.networks.HNOSegXS", "torch.optim.AdamW", "DiceCELoss"]
    + ["medseg.labels.LabelSpace.from_table", "Compose", "SupervisedEvaluator", f"{__name__}.Own", "@network"],
)
def test_components_pass(target: str) -> None:
    assert foreign_code({"x": {"_target_": target}}) == []


def test_a_bundle_is_refused_before_anything_runs_and_says_where(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "configs").mkdir()
    config = {"bundle_root": ".", "initialize": [f"$open({str(mark)!r}, 'w').close()"], "run": [], "finalize": []}
    (tmp_path / "configs" / "inference.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ModelError, match=r"inference.yaml, line 4: '\$open\(.*--trust_bundle"):
        load_workflow(tmp_path, "infer")
    assert not mark.exists()
    with trusted_bundles():
        load_workflow(tmp_path, "infer")
    assert mark.exists()
    with pytest.raises(ModelError, match="trust_bundle"):
        load_workflow(tmp_path, "infer")
