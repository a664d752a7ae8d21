"""What the forge reads: workflows and issue forms are valid, and name what there is."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"


def test_workflows_test_the_supported_versions() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["metadata"]["classifiers"].splitlines()
    supported = [line.rpartition(" ")[2] for line in lines if line.startswith("Programming Language :: Python :: 3.")]
    jobs = yaml.safe_load((GITHUB / "workflows" / "tests.yml").read_text())["jobs"]
    assert jobs["pinned"]["strategy"]["matrix"]["python"] == supported
    oldest = jobs["bounds"]["strategy"]["matrix"]["include"][0]
    least = dict(line.split(">=") for line in config["options"]["install_requires"].split() if ">=" in line)
    for package in oldest["packages"].split():
        name, _, number = package.partition("==")
        assert number.removesuffix(".*") == least.get(name, number.removesuffix(".*")), package
    assert oldest["python"] == config["options"]["python_requires"].removeprefix(">=")


@pytest.mark.parametrize("path", sorted(GITHUB.glob("workflows/*.yml")), ids=lambda path: path.stem)
def test_a_workflow_is_complete(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"] and all(("uses" in step) != ("run" in step) for step in job["steps"])


@pytest.mark.parametrize(
    "name",
    [
        *(".github/SECURITY.md", ".github/pull_request_template.md", ".pre-commit-config.yaml"),
        *("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "RELEASING.md", "CITATION.cff", "LICENSE", "CHANGELOG.md"),
    ],
)
def test_what_a_public_repository_has(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert ((ROOT / name).parent / link).exists(), link


def test_an_issue_asks_for_the_report() -> None:
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml")}
    assert set(forms) == {"config", "fault", "question", "wish"}
    asked = [part for part in forms["fault"]["body"] if "medseg doctor --report" in part["attributes"]["label"]]
    assert asked[0]["validations"]["required"] is True
