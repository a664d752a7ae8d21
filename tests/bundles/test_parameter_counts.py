"""The parameter counts that bundles state, against the networks that their configs build."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

BUNDLES = Path(__file__).parents[2] / "bundles"
_COUNT = re.compile(r"\d{1,3}(?:,\d{3})+")


def parameters(bundle: Path, overlay: str | None) -> int:
    """Of the bundle's network, as it is or under an overlay."""
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.yaml") for name in ("inference", overlay) if name])
    with torch.device("meta"):
        return sum(p.numel() for p in parser.get_parsed_content("network_def").parameters())


def wrong_counts(bundle: Path, count: Callable[[Path, str | None], int] = parameters) -> Iterator[str]:
    """What README and metadata state otherwise: the bundle's own count, and that of overlays in tables."""
    own = count(bundle, None)
    readme = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    if f"{own:,}" not in readme:
        yield f"README does not state {own:,} parameters"
    described = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["description"]
    (stated,) = re.findall(r"([\d.,]+)( million)? parameters", described)
    digits = len(stated[0].partition(".")[2])
    if stated[0] != (f"{own / 1e6:.{digits}f}" if stated[1] else f"{own:,}"):
        yield f"metadata.json states {''.join(stated)} parameters, the network has {own:,}"
    for table in re.findall(r"(?:^\|.*\n)+", readme, re.MULTILINE):
        header, *rows = table.splitlines()
        for row in rows:
            overlay = row.split("|")[1].strip(" `")
            numbers = _COUNT.findall(row) if "parameters" in header + row else []
            if not numbers or not (bundle / "configs" / f"{overlay}.yaml").is_file():
                continue
            if (expected := f"{count(bundle, overlay):,}") not in numbers:
                yield f"README states {', '.join(numbers)} for {overlay}, the network has {expected}"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in BUNDLES.glob("*/docs")))
def test_readme_and_metadata_state_what_the_configs_build(name: str) -> None:
    assert list(wrong_counts(BUNDLES / name)) == []


def test_a_planted_fault_is_noticed() -> None:
    def one_more(bundle: Path, overlay: str | None) -> int:
        return parameters(bundle, overlay) + 1

    found = list(wrong_counts(BUNDLES / "ssh_unet_btcv_ct_segmentation", one_more))
    assert [line.partition(" states ")[0] for line in found] == ["README does not state 6,480,143 parameters"] + [
        "README"
    ] * 3
    assert len(list(wrong_counts(BUNDLES / "fno_brats23_mri_segmentation", one_more))) == 2
