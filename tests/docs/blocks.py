"""Code blocks of a documentation page, and how a reader would run them, one after the other in one folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.cli import main

LANGUAGES = ("bash", "python")
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        language: ``bash``, ``python``, or another that is not run.
        title: what is shown above it; one that begins with "needs" says why it is not run.
        text: the code.
        line: where it begins in the page.
    """

    language: str
    title: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        """Whether it is run."""
        return self.language in LANGUAGES and not self.title.startswith("needs ")

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line of medseg; what follows a ``#`` is a comment."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.language == "bash" else []
        return [shlex.split(line, comments=True) for line in lines if line.startswith("medseg ")]


def blocks(path: Path) -> list[Block]:
    """All code blocks of a page."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            found[1], "".join(re.findall(r'title="([^"]*)"', found[2])), found[3], text[: found.start()].count("\n") + 1
        )
        for found in _FENCE.finditer(text)
    ]


def run(page: Sequence[Block], training: Sequence[str] = ()) -> None:
    """Run the blocks in the current folder; commands of medseg in this process, which saves their imports.

    Args:
        page: the blocks.
        training: further options of ``medseg train``, which make it short.

    Raises:
        AssertionError: a command ended with another status than 0.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in page:
        if block.language == "python":
            exec(compile(block.text, f"line {block.line}", "exec"), names)
            continue
        for words in _lines(block.text):
            if words[0] == "medseg":
                status = main([*words[1:], *(training if words[1] == "train" else ())])
            else:
                path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
                status = subprocess.run(words, env=os.environ | {"PATH": path}).returncode
            assert status == 0, f"line {block.line}: {shlex.join(words)} ended with status {status}"


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words
