"""Whatever a person reads keeps to the glossary of CONTRIBUTING.md: messages, docstrings, pages, configs."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_ROW = re.compile(
    r"^\| (?P<write>[^|]+) \| `(?P<bad>(?:[^`|]|\\\|)+)` \|(?: `(?P<fine>(?:[^`|]|\\\|)+)`[^|]*)? *\|$", re.M
)
_CODE = re.compile(r"^ *```.*?^ *```|``[^`]*``|`[^`]*`", re.MULTILINE | re.DOTALL)
_PARAMETER = re.compile(r"^ +\w+(?:, \w+)*: ", re.MULTILINE)  # its name, in a docstring
_PAGES = (".md", ".yaml", ".yml", ".html", ".txt", ".cff")
_MARKUP = re.compile(r"\{[{%].*?[%}]\}|<[^>]*>", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """A row of the glossary.

    Attributes:
        write: plain words.
        bad: pattern of what to write them for.
        fine: pattern of where the bad words are right.
    """

    write: str
    bad: re.Pattern[str]
    fine: re.Pattern[str] | None

    def found(self, words: str) -> list[str]:
        """The places of ``words`` that break the rule, with what stands around them."""
        fine = [match.span() for match in self.fine.finditer(words)] if self.fine else []
        return [
            f"{words[max(0, bad.start() - 40) : bad.end() + 40]!r}: write {self.write}"
            for bad in self.bad.finditer(words)
            if not any(start <= bad.start() and bad.end() <= end for start, end in fine)
        ]


def glossary() -> list[Rule]:
    """The rows of the table in CONTRIBUTING.md."""

    def pattern(cell: str) -> re.Pattern[str]:
        return re.compile(cell.replace(r"\|", "|"), re.IGNORECASE)

    rows = _ROW.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    return [Rule(row["write"], pattern(row["bad"]), pattern(row["fine"]) if row["fine"] else None) for row in rows]


def of_source(path: Path) -> Iterator[tuple[int, str]]:
    """Line and words of docstrings and messages; a field of an f-string is a dot, a list of words is not prose."""
    parts: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split":
            parts.add(node.func.value)
        elif isinstance(node, ast.JoinedStr):
            parts |= set(node.values)
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts and " " in node.value:
            yield node.lineno, _PARAMETER.sub("", node.value)


def of_page(path: Path) -> Iterator[tuple[int, str]]:
    """Line and words of a page without its code and markup, of a config its comments, paragraph by paragraph."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        text = "\n".join(line.partition("# ")[2] for line in text.splitlines())
    text = _CODE.sub(lambda code: "…" + "\n" * code[0].count("\n"), text)
    text = _ROW.sub("", text)
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", _MARKUP.sub("", text)):
        yield line, paragraph
        line += paragraph.count("\n")


def texts() -> Iterator[tuple[str, str]]:
    """Place and words of all that the repository says; licences are others' words, tests are for developers."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout
    shipped = [str(path.relative_to(ROOT)) for path in (ROOT / "medseg").rglob("*")]  # without git
    for name in filter(None, listed.split("\0")) if listed else shipped:
        path = ROOT / name
        if name.startswith("tests/") or not path.is_file() or path.stem.upper() == "LICENSE":
            continue
        read = of_source if path.suffix == ".py" else of_page if path.suffix in _PAGES else None
        for line, words in read(path) if read else ():
            yield f"{name}:{line}", " ".join(_CODE.sub("…", words).split())


def test_the_glossary_is_kept() -> None:
    rules = glossary()
    assert len(rules) >= 16
    found = [f"{place}: {hit}" for place, words in texts() for rule in rules for hit in rule.found(words)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "words",
    [
        "Mend the datalist.",
        "the window does not fit the memory",
        "'x' is no valid size",
        "expected a text",
        "the run goes on from here",
        "label maps on the images' own grids",
    ],
)
def test_words_of_the_right_column_are_found(words: str) -> None:
    assert any(rule.found(words) for rule in glossary())


@pytest.mark.parametrize("words", ["a CT intensity window", "there is no run", "on Windows", "a sliding window"])
def test_what_is_right_is_not_found(words: str) -> None:
    assert not any(rule.found(words) for rule in glossary())


def test_a_description_begins_with_its_noun() -> None:
    """``rows: number of rows``, never ``rows: of the table``."""
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "medseg").rglob("*.py")}
    found = [
        f"{path}: {hit}"
        for path, text in sources.items()
        for hit in re.findall(r"^ {8,}\w+(?:, \w+)*: of .*", text, re.M)
    ]
    assert not found, "\n".join(found)
