"""Which cases are scored, and as what: decided once, from the merged config, before anything runs.

What counts is the list of cases that the engine will be given, wherever it comes from: an option, an overlay, or a
config of an earlier version. Whether they are the run's validation cases is found out by their files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle.compose import start
from medseg.bundle.folder import Bundle
from medseg.bundle.recipe import Recipe
from medseg.data import Case, Datalist, read_datalist
from medseg.data.content import content_hash
from medseg.data.files import is_there
from medseg.engines.ranks import on_main
from medseg.engines.run_facts import RunFacts, read_facts
from medseg.errors import ConfigError, DataError, nearest
from medseg.metrics import ScoreFacts
from medseg.workflows.run_folder import require_same_data, trained_on
from medseg.workflows.stored_list import read_stored_list

__all__ = ["ROLES", "Selection", "own_role", "select"]

ROLES = ("validation", "training", "test", "external")
_DATA = "validate::dataset::data"
_SHOWN = 3  # cases in a sentence


@dataclass(frozen=True)
class Selection:
    """The cases that a run is scored on.

    Attributes:
        cases: all of them, each with a label.
        datalist: that they are from.
        role: one of ``ROLES``: the run's validation cases, some that it was trained on, others of its datalist, or
            those of another datalist.
        section: section of the datalist; ``None`` where the cases are of several.
        fold: fold of the run; ``None`` where it has none.
        seen: how many of them the run's weights were trained on, by the run or before it.
        run: facts of the run when they were selected.
    """

    cases: tuple[Case, ...]
    datalist: Datalist
    role: str
    section: str | None
    fold: int | None
    seen: int = 0
    run: RunFacts = RunFacts()

    @property
    def place(self) -> str:
        """Folder of the scores in a run; empty for validation scores, which are the run's own."""
        if self.role == "validation":
            return ""
        parts = ("external", self.datalist.name) if self.role == "external" else ()
        name = "_".join([*parts, *([self.section] if self.section else [])]) or self.role
        return "scores/" + re.sub(r"[^\w.-]+", "_", name)

    @property
    def words(self) -> str:
        """Such as ``5 test cases`` in a sentence."""
        what = f"cases of {self.datalist.name}" if self.role == "external" else f"{self.section or self.role} cases"
        return f"{len(self.cases)} {what}"

    def facts(self) -> ScoreFacts:
        """What scores of these cases are of, with the hashes of all files."""
        return ScoreFacts(
            section=self.section,
            fold=self.fold,
            role=self.role,
            datalist=str(self.datalist.path),
            subjects={case.id: case.subject for case in self.cases if case.subject is not None} or None,
            files_sha256={case.id: [content_hash(file) for file in case.files] for case in self.cases},
        )


def select(bundle: Bundle, recipe: Recipe, *, named: bool = False, section: str | None = None) -> Selection:
    """The cases that an evaluation scores.

    Args:
        bundle: the run.
        recipe: its resolved evaluation, with what the user and the command say.
        named: whether the user names the datalist.
        section: that the user asks for; default: the config's own.

    Raises:
        ConfigError: the config names its cases itself, and not those of ``section``.
        DataError: there are no cases, or some have no label.
    """
    folder, parser = bundle.root, start(recipe, "evaluate").parser
    json_list, data, fold = (parser.get_parsed_content(key) for key in ("json_list", "dataset_dir", "fold"))
    datalist = read_datalist(json_list, data) if named else read_stored_list(folder, data, json_list)
    asked = section or str(recipe.tree["section"])
    entries = parser.get_parsed_content(_DATA)
    if not isinstance(entries, list) or not all(
        isinstance(e, Mapping) and {"image", "case_id"} <= {*e} for e in entries
    ):
        raise ConfigError(
            f"{_DATA}: expected a list of cases with 'image', 'label' and 'case_id', as medseg.workflows.cases gives "
            "it. Use that component."
        )
    listed = {case.id: case for cases in datalist.sections.values() for case in cases}
    cases = [_case(entry, listed) for entry in entries]
    _refuse_unscorable(cases, datalist, asked, folder)
    role, found, seen = _role(cases, datalist, bundle)
    known = read_facts(folder)
    if role != "external":
        on_main(lambda: require_same_data(folder, known, cases))
    files = {case.id: [content_hash(image) for image in case.images if is_there(image)] for case in cases}
    seen = max(seen, len(trained_on(known, files)))
    if section is not None and found != section:
        raise ConfigError(
            f"--section {section}: {_DATA} of {recipe.tree.where} names other cases itself; leave --section out, or "
            "the overlay."
        )
    return Selection(tuple(cases), datalist, role, found, fold, seen, known)


def own_role(bundle: Bundle, case_ids: Sequence[str]) -> str:
    """The role of cases that earlier scores of a run name by their ids alone.

    Raises:
        DataError: the run's datalist cannot be read.
    """
    datalist = read_datalist(bundle.root / "configs" / "datalist.json", bundle.root)  # ids alone: no image is opened
    fold = bundle.trained.get("fold")
    ids = {name: {case.id for case in datalist.cases(name, fold)} for name in datalist.sections}
    for role in ("validation", "training"):
        if set(case_ids) <= ids[role]:
            return role
    return "test" if set(case_ids) <= set().union(*ids.values()) else "external"


def _case(entry: Mapping[str, Any], listed: Mapping[str, Case]) -> Case:
    """The datalist's case behind an engine's entry, or one of its own."""
    case = Case.from_entry(entry, str(entry["case_id"]))
    known = listed.get(case.id)
    return known if known is not None and (known.images, known.label) == (case.images, case.label) else case


def _refuse_unscorable(cases: Sequence[Case], datalist: Datalist, section: str, run: Path) -> None:
    if not cases:
        if section == "validation":
            raise DataError(
                f"{run} has no validation cases; train with --fold K, or add a 'validation' section to the datalist."
            )
        if section not in datalist.sections:
            raise DataError(f"{datalist.path} has no section '{section}'.{nearest(section, datalist.sections)}")
        raise DataError(f"Section '{section}' of {datalist.path} has no case to score; name another with --section.")
    bare = [case.id for case in cases if not case.label]
    if bare:
        shown = ", ".join(bare[:_SHOWN]) + (", …" if len(bare) > _SHOWN else "")
        raise DataError(
            f"{len(bare)} of {len(cases)} cases of {datalist.path} that would be scored have no label ({shown}); "
            "scores need labels. Add them to the datalist, or use `medseg infer` for images alone."
        )


def _role(cases: Sequence[Case], datalist: Datalist, bundle: Bundle) -> tuple[str, str | None, int]:
    """Role, section, and how many of the cases the run was trained on."""
    stored, config = bundle.root / "configs" / "datalist.json", bundle.trained
    own: Datalist | None = datalist
    if stored.is_file() and Path(datalist.path).resolve() != stored.resolve():
        try:
            own = read_stored_list(bundle.root, config["dataset_dir"])
        except DataError:  # its images are no longer there: none of these are among them
            own = None
    files = {_files(case) for case in cases}
    sections = _sections(own, config.get("fold")) if own is not None else {}
    trained = {images for images, _ in sections.get("training", set())}
    seen = sum(images in trained for images, _ in files)
    found = next((name for name, known in sections.items() if files <= known), None)
    if found is not None:
        return (found if found in ROLES[:2] else "test"), found, seen
    if sections and files <= set().union(*sections.values()):
        return ("training" if seen else "test"), None, seen
    elsewhere = _sections(datalist, None, split=False)
    return "external", next((name for name, known in elsewhere.items() if files <= known), None), seen


_Files = tuple[tuple[str, ...], str]


def _files(case: Case) -> _Files:
    """Images and label of a case, links followed."""
    return tuple(map(os.path.realpath, case.images)), os.path.realpath(case.label) if case.label else ""


def _sections(datalist: Datalist, fold: int | None, *, split: bool = True) -> dict[str, set[_Files]]:
    """The files of each section; validation first and training last, since known overlaps are in both."""
    names = sorted(datalist.sections, key=lambda name: (name == "training", name != "validation"))
    cases = {name: datalist.cases(name, fold) if split else datalist.sections[name] for name in names}
    return {name: {_files(case) for case in listed} for name, listed in cases.items()}
