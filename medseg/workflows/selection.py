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

from medseg.bundle.compose import config_files, load_workflow, merged_config
from medseg.bundle.own_words import user_speaks
from medseg.data import Case, Datalist, read_datalist
from medseg.data.content import content_hash
from medseg.engines.ranks import on_main
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError, DataError, nearest
from medseg.workflows.run_folder import require_run, require_same_data, trained_on
from medseg.workflows.stored_list import read_stored_list

__all__ = ["ROLES", "Selection", "own_role", "scoring_changes", "select"]

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
        section: of the datalist; ``None`` where they are of several.
        fold: of the run; ``None`` where it has none.
        seen: how many of them the run was trained on.
    """

    cases: tuple[Case, ...]
    datalist: Datalist
    role: str
    section: str | None
    fold: int | None
    seen: int = 0

    @property
    def place(self) -> str:
        """Folder of the scores in a run; empty for validation scores, which are the run's own."""
        if self.role == "validation":
            return ""
        parts = ("external", self.datalist.name) if self.role == "external" else ()
        name = "_".join([*parts, *([self.section] if self.section else [])]) or self.role
        return "scores/" + re.sub(r"[^\w.-]+", "_", name)

    @property
    def facts(self) -> dict[str, Any]:
        """What ``metrics.json`` says of the cases."""
        return {
            "section": self.section,
            "role": self.role,
            "fold": self.fold,
            "datalist": str(self.datalist.path),
        }

    @property
    def words(self) -> str:
        """Such as ``5 test cases`` in a sentence."""
        what = f"cases of {self.datalist.name}" if self.role == "external" else f"{self.section or self.role} cases"
        return f"{len(self.cases)} {what}"


def scoring_changes(
    run: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    overlays: Sequence[str] = (),
    data_dir: str | Path | None = None,
    section: str | None = None,
) -> dict[str, Any]:
    """The overrides of evaluate.yaml by which a section is scored, over the user's own.

    A run of an earlier version has no id ``section``; its list of cases is replaced where an option or an overlay
    names one.
    """
    changes = dict(overrides or {})
    if data_dir is not None:
        changes["dataset_dir"] = str(Path(data_dir).resolve())
    own = merged_config(config_files(run, "evaluate"))
    if "section" in own:
        return changes | ({} if section is None else {"section": section})
    merged = merged_config(config_files(run, "evaluate", overlays))
    if section is None and merged["validate"]["dataset"]["data"] == own["validate"]["dataset"]["data"]:
        section = merged.get("section")
    if section is not None:
        references = {key: f"@{key}" for key in ("json_list", "dataset_dir", "fold")}
        changes[_DATA] = {"_target_": "medseg.workflows.cases", **references, "section": section}
    return changes


@user_speaks("overrides")
def select(
    run: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    overlays: Sequence[str] = (),
    data_dir: str | Path | None = None,
    section: str | None = None,
) -> Selection:
    """The cases that ``evaluate`` scores with these settings.

    Args:
        run: the run folder.
        overrides: config id -> value.
        overlays: further config files of the run.
        data_dir: base directory of the datalist's paths; default: as in training.
        section: of the datalist; default: the config's own.

    Raises:
        ConfigError: the config names its cases itself, and not those of ``section``.
        DataError: there are no cases, or some have no label.
    """
    folder = require_run(run).resolve()
    changes = scoring_changes(folder, overrides=overrides, overlays=overlays, data_dir=data_dir, section=section)
    parser = load_workflow(folder, "evaluate", changes, overlays).parser
    json_list, data, fold = (parser.get_parsed_content(key) for key in ("json_list", "dataset_dir", "fold"))
    named = "json_list" in changes  # by the user
    datalist = read_datalist(json_list, data) if named else read_stored_list(folder, data, json_list)
    asked = section or (str(parser["section"]) if "section" in parser else "validation")
    entries = parser.get_parsed_content(_DATA)
    if not isinstance(entries, list) or not all(
        isinstance(e, Mapping) and {"image", "case_id"} <= {*e} for e in entries
    ):
        raise ConfigError(
            f"{_DATA}: expected a list of cases with 'image', 'label' and 'case_id', as w.cases gives it."
        )
    listed = {case.id: case for cases in datalist.sections.values() for case in cases}
    cases = [_case(entry, listed) for entry in entries]
    _refuse_unscorable(cases, datalist, asked, folder)
    role, found, seen = _role(cases, datalist, folder)
    if role == "external":
        files = {case.id: [content_hash(image) for image in case.images if Path(image).is_file()] for case in cases}
        seen = max(seen, len(trained_on(read_facts(folder), files)))
    else:
        on_main(lambda: require_same_data(folder, cases))
    if section is not None and found != section:
        raise ConfigError(
            f"--section {section}: {_DATA} of {' + '.join(['the run', *overlays])} names other cases itself; leave "
            "--section out, or the overlay."
        )
    return Selection(tuple(cases), datalist, role, found, fold, seen)


def own_role(run: Path, case_ids: Sequence[str]) -> str:
    """The role of cases that earlier scores of a run name by their ids alone.

    Raises:
        DataError: the run's datalist cannot be read.
    """
    config = merged_config([run / "configs" / "train.yaml"])
    datalist = read_datalist(run / "configs" / "datalist.json", run)  # ids alone: no image is opened
    ids = {name: {case.id for case in datalist.cases(name, config.get("fold"))} for name in datalist.sections}
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


def _role(cases: Sequence[Case], datalist: Datalist, run: Path) -> tuple[str, str | None, int]:
    """Role, section, and how many of the cases the run was trained on."""
    stored = run / "configs" / "datalist.json"
    config = merged_config([run / "configs" / "train.yaml"])
    own: Datalist | None = datalist
    if stored.is_file() and Path(datalist.path).resolve() != stored.resolve():
        try:
            own = read_stored_list(run, config["dataset_dir"])
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
