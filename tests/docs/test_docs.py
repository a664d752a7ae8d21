"""The documentation: its blocks run or say what they need, its commands exist, and the site builds by itself."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from blocks import blocks, run

from medseg.cli import main
from medseg.cli.commands import COMMANDS
from medseg.cli.parser import CommandParser
from medseg.data import datalist_form
from medseg.data.datalist_form import ENTRY_KEYS
from medseg.labels import table as label_table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
TUTORIALS = [path for path in PAGES if path.parent.name == "tutorials" and path.stem != "index"]
OTHERS = [path for path in PAGES if path not in TUTORIALS and any(block.runs for block in blocks(path))]


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).with_suffix("").as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", [*TUTORIALS, *OTHERS], ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run([block for block in blocks(page) if block.runs])


@pytest.mark.slow
def test_the_blocks_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["phantom", "--output", "my_images", "--cases", "6"]) == 0
    Path("my_images/dataset.json").unlink()
    Path("my_images/imagesTs").rename("new_images")
    short = ["--epochs", "1", "--set", "repeats=1", "--set", "roi_size=[16,16,16]"]
    run([block for block in blocks(README) if block.runs], short)
    assert {path.name for path in Path("out").glob("*.nii.gz")} == {"organs_006.nii.gz", "organs_007.nii.gz"}


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_commands_and_options_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(page):
        for words in block.commands:
            command = next((" ".join(words[1:end]) for end in (3, 2) if " ".join(words[1:end]) in COMMANDS), None)
            assert command is not None, f"line {block.line}: {' '.join(words)}"
            parser = CommandParser(command)
            known = [f"--{flag}" for option in parser.options for flag in option.names]
            options = [word.partition("=")[0] for word in words if word.startswith("--")]
            own = COMMANDS[command].parts is not None  # of data sets and challenges
            assert own or set(options) <= {*known, "--trust_bundle", "--debug"}, f"line {block.line}: {' '.join(words)}"


def test_every_block_is_run_or_says_what_it_needs() -> None:
    pages = [README, *PAGES]
    languages = {block.language for page in pages for block in blocks(page)}
    assert languages <= {"bash", "python", "text", "json", "yaml"}
    fenced = [len(re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in pages]
    assert fenced == [2 * len(blocks(page)) for page in pages]  # none without a language, none indented


@pytest.mark.parametrize("page", TUTORIALS, ids=name_of)
def test_a_tutorial_opens_as_a_notebook(page: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    cells = [cell for cell in jupytext.read(page).cells if cell.cell_type == "code"]
    found = [block for block in blocks(page) if block.language in ("bash", "python")]
    assert len(cells) == len(found)


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """The module that makes the pages of the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("reference_pages")


def test_the_reference_has_everything(reference: ModuleType) -> None:
    pages = reference.pages()
    commands = pages["reference/commands.md"]
    assert all(f"## medseg {name} {{" in commands for name in COMMANDS)
    config = pages["reference/config.md"]
    for row in ("| `learning_rate` | first learning rate | planned | a positive number | train |", "| `null_tasks` |"):
        assert row in config
    assert "| 5 | resources: memory, disk, device |" in pages["reference/exit-statuses.md"]
    said = pages["reference/messages.md"]
    assert "| … is empty (0 bytes)" in said and "| No metric '…'.… `medseg metrics` lists them all. |" in said
    assert "no GPU: small networks" in pages["explanation/planned.md"]
    assert pages["explanation/floor_plan.svg"].count("<rect") > 20


def test_the_results_are_of_the_studies_as_they_are(reference: ModuleType) -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    measured = re.findall(r"`studies/(\w+)\.yaml`:", text)
    assert measured and all(
        (ROOT / "studies" / f"{name}.yaml").read_text(encoding="utf-8") in text for name in measured
    )
    assert reference.published_figures().count("\n") > 12


def test_originals_have_their_commands(reference: ModuleType) -> None:
    asked = [found for page in PAGES for found in reference._ORIGINAL.findall(page.read_text(encoding="utf-8"))]
    assert len(asked) >= 5
    assert all(reference.original_commands(name).count("\n") > 4 for name in asked)


def test_a_key_without_a_meaning_is_refused(reference: ModuleType) -> None:
    with pytest.raises(LookupError, match="no recipe of common says what 'nothing' means"):
        reference.meaning("nothing", "common")


@pytest.mark.slow
def test_the_site_builds_by_itself(tmp_path: Path) -> None:
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name)
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert len(pages) > 40
    fetched = r'<(?:script|img|iframe)[^>]*\ssrc="https?:|<link[^>]*rel="(?:stylesheet|pre\w+)"[^>]*href="https?:'
    assert [path.name for path, text in pages.items() if re.search(fetched, text)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))
    assert not re.search(r"url\([\"']?https?:", styles)


def test_the_datalist_page_names_every_key() -> None:
    text = (DOCS / "reference" / "datalist.md").read_text(encoding="utf-8")
    known = {*ENTRY_KEYS, *datalist_form._READ, *label_table._KEYS} - {"testing"}  # nnU-Net's name of test
    assert [key for key in sorted(known) if f"`{key}`" not in text] == []


@pytest.mark.slow
def test_the_page_of_a_runs_files_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        "phantom --output data --cases 4",
        "train --network UNet --json_list data/dataset.json --fold 0 --output run --epochs 1 --set repeats=1 "
        "--set roi_size=[16,16,16]",
        "validate --run run",
        "report --run run",
    ):
        assert main(command.split()) == 0
    text = (DOCS / "reference" / "run-files.md").read_text(encoding="utf-8")
    folders = {"configs", "checkpoints", "docs"}  # whose files are named one by one
    files = [path.relative_to("run") for path in Path("run").rglob("*") if path.is_file()]
    names = {path.name if path.parts[0] in folders or len(path.parts) == 1 else f"{path.parts[0]}/" for path in files}
    assert [name for name in sorted(names - {"models/"}) if name not in text] == []
