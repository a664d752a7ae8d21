"""What a network, a bundle and a run owe, as BibTeX; nothing that the project does not state is made up."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medseg.errors import ConfigError
from medseg.networks import catalog
from medseg.shipped import shipped_bundles
from medseg.weights.notice import notice_file, read_notice, write_notice
from medseg.weights.original import ImportReport, licence_notice, systems
from medseg.workflows.cite import cite


def keys(entries: list[str]) -> list[str]:
    return [found for entry in entries for found in re.findall(r"^@\w+\{(.*),$", entry, re.MULTILINE)]


def test_a_paper_of_the_five_systems_has_its_authors() -> None:
    paper, monai, medseg = cite("hnoseg_xs")
    assert "author = {Wong, Ken C. L. and Wang, Hongzhi and Syeda-Mahmood, Tanveer}" in paper
    assert "journal = {IEEE Transactions on Medical Imaging}" in paper and "eprint = {2507.08205}" in paper
    assert "MONAI" in monai and "medseg" in medseg
    assert "booktitle = {ICMVA 2024}" in cite("ssh_unet")[0]


def test_another_paper_has_what_is_known() -> None:
    first, second = cite("fno")[:2]  # `…; as in arXiv 2507.08205`
    assert "eprint = {2010.08895}" in first and "author" not in first and "year = {2021}" in first
    assert "Wong, Ken" in second


@pytest.mark.parametrize("name", [*catalog(), *shipped_bundles()])
def test_everything_that_comes_with_medseg_can_be_cited(name: str) -> None:
    entries = cite(name)
    found = keys(entries)
    assert len(set(found)) == len(found) >= 3 and "medseg" in found
    for entry in entries:
        assert entry.count("{") == entry.count("}") and "None" not in entry and "{}" not in entry


def test_a_network_of_monai_and_an_unknown_one() -> None:
    assert "network of MONAI" in cite("SegResNet")[0]
    with pytest.raises(ConfigError, match="No network"):
        cite("hnoseg_xz")


def test_a_bundle_names_its_data_and_its_first_weights(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("network_def: {_target_: medseg.networks.UXNet}\n")
    table = {"name": "Spleens", "reference": "Somebody 2020", "licence": "CC-BY 4.0", "labels": {}}
    (tmp_path / "configs" / "datalist.json").write_text(json.dumps(table))
    write_notice(tmp_path / "models" / "model.pt", "Weights of A.\n\nTerms.\n")
    text = "\n".join(cite(tmp_path))
    assert keys([text]) == ["ux", "data", "weights", "monai", "medseg"]
    assert "Somebody 2020" in text and "CC-BY 4.0" in text and "{{Weights of A.}}" in text


def test_originals_without_a_licence_say_so() -> None:
    without = [one for one in systems() if "states no licence" in licence_notice(ImportReport(one, "A", "b", {}, 1))]
    assert without == ["hermes", "qtseg"]


def test_a_notice_stands_beside_weights_without_a_bundle(tmp_path: Path) -> None:
    assert notice_file(tmp_path / "net.pt") == tmp_path / "net.pt.license.txt"
    assert read_notice(tmp_path / "net.pt") == ""
