"""What a run stands on: its network's papers, MONAI, its data, the weights that it starts from, and medseg, as BibTeX.

Papers with their authors stand in ``CITATION.cff``; of the others a network's facts know title, venue and number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from medseg.bundle.folder import Bundle
from medseg.bundle.metadata import plain_text
from medseg.networks.catalog import NetworkFacts, catalog, own_network
from medseg.networks.registry import network_target
from medseg.settings import takes
from medseg.shipped import citation_file
from medseg.storage import read_json, read_yaml
from medseg.version import __version__
from medseg.weights.notice import read_notice

__all__ = ["CiteSettings", "cite"]

_ARXIV = re.compile(r",? ?arXiv[: ](\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class CiteSettings:
    """What is cited.

    Attributes:
        of: run folder, bundle folder or its name, or network.
    """

    of: str | Path = field(metadata={"positional": "RUN|BUNDLE|NETWORK"})


@takes(CiteSettings)
def cite(settings: CiteSettings) -> list[str]:
    """Print the BibTeX of what a run, a bundle or a network stands on: papers, data, first weights, MONAI, medseg.

    Raises:
        ConfigError: neither a folder, nor a bundle, nor a network.
        DataError: a file of the run is damaged.
    """
    bundle = Bundle(settings.of)
    found = _of_bundle(bundle) if bundle.root.is_dir() else _of_network(str(settings.of))
    return list(dict.fromkeys([*found, *_tools()]))


def _of_network(name: str) -> Iterator[str]:
    target = network_target(name)
    for facts in _known(target):
        yield from _papers(facts.paper)
    if target.startswith("monai."):
        yield f"% {target.rpartition('.')[2]} is a network of MONAI, whose documentation names its paper."


def _known(target: str) -> list[NetworkFacts]:
    return [facts for facts in catalog().values() if target == f"medseg.networks.{facts.class_name}"]


def _of_bundle(bundle: Bundle) -> Iterator[str]:
    target = str(own_network(bundle.trained.get("network_def", {})).get("_target_", ""))
    yield from _of_network(target) if target else ()
    meta, datalist = bundle.metadata, bundle.root / "configs" / "datalist.json"
    if not _known(target):
        for reference in meta.get("references", ()):
            yield from _papers(str(reference))
    table = read_json(datalist) if datalist.is_file() else {"name": meta.get("data_source")}
    if table.get("reference") or not datalist.is_file():
        told = {"title": table.get("name"), "note": table.get("reference"), "addendum": table.get("licence")}
        yield _entry("misc", "data", {name: plain_text(text, "") for name, text in told.items()})
    if notice := read_notice(bundle.root / "models" / "model.pt"):
        title, _, note = notice.partition("\n")
        yield _entry("misc", "weights", {"title": title, "note": " ".join(note.split())})


def _tools() -> Iterator[str]:
    about = metadata("monai").json
    author = str(about.get("author") or about.get("author_email")).partition(" <")[0]
    told = {"title": f"MONAI: {about['summary']}", "author": f"{{{author}}}", "note": f"Version {about['version']}"}
    yield _entry("misc", "monai", told)
    own = _citation()
    author = " and ".join(f"{{{one['name']}}}" for one in own["authors"])
    yield _entry(
        "misc", "medseg", {"title": f"medseg: {own['abstract']}", "author": author, "note": f"Version {__version__}"}
    )


def _papers(text: str) -> Iterator[str]:
    """The papers of a reference such as ``HNOSeg-XS, IEEE TMI 2025, arXiv 2507.08205; as in arXiv 2010.08895``."""
    references = {_number(reference): reference for reference in _citation()["references"]}
    for part in text.split(";"):
        number = found[1] if (found := _ARXIV.search(part)) else ""
        yield _full(references[number], number) if number in references else _short(part, number)


def _short(part: str, number: str) -> str:
    """A paper of which title, venue and number are known."""
    title, *rest = _ARXIV.sub("", part).strip().split(", ")
    venue = ", ".join(rest)
    fields = {"title": title, "howpublished": venue, "year": _year(venue), **_eprint(number)}
    return f"% Authors: see the paper.\n{_entry('misc', _key(title), fields)}"


def _full(reference: Mapping[str, Any], number: str) -> str:
    """A paper of ``CITATION.cff``, with its authors."""
    conference = reference["type"] == "conference-paper"
    venue = str(reference.get("notes", "")).rpartition("; ")[2] if conference else reference.get("journal", "")
    kind = "inproceedings" if conference else "article" if venue else "misc"
    people = [f"{one['family-names']}, {one['given-names']}" for one in reference["authors"]]
    key = f"{reference['authors'][0]['family-names']}{reference['year']}{_key(reference['title'])}".lower()
    fields = {"title": reference["title"], "author": " and ".join(people)}
    fields |= {"booktitle" if conference else "journal": venue, "year": str(reference["year"]), **_eprint(number)}
    return _entry(kind, key, fields)


def _number(reference: Mapping[str, Any]) -> str:
    """The arXiv number of a reference of ``CITATION.cff``."""
    values = (str(one["value"]) for one in reference.get("identifiers", ()))
    return next((value.removeprefix("arXiv:") for value in values if value.startswith("arXiv:")), "")


def _eprint(number: str) -> dict[str, str]:
    return {"eprint": number, "archiveprefix": "arXiv"} if number else {}


def _year(venue: str) -> str:
    return found[0] if (found := re.search(r"\b(19|20)\d\d\b", venue)) else ""


def _key(title: str) -> str:
    """The first word of a title, as a key."""
    words: Sequence[str] = re.findall(r"[a-z]\w+", title.lower())
    return words[0] if words else "paper"


def _entry(kind: str, key: str, fields: Mapping[str, str]) -> str:
    given = {"title": f"{{{fields['title']}}}"} | {name: value for name, value in fields.items() if name != "title"}
    lines = [f"  {name} = {{{value}}}," for name, value in given.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


@cache
def _citation() -> dict[str, Any]:
    """The content of ``CITATION.cff``."""
    found: dict[str, Any] = read_yaml(citation_file())
    return found
