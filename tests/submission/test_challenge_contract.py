"""Every challenge: its rules against the rules that it states, and a planted fault of each kind."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from contract import ARCHIVE_VALUES, build, contradictions, faults, ids, predict, values_of

from medseg.data import Case
from medseg.datasets import datasets
from medseg.errors import DataError
from medseg.submission import challenge_module, challenges
from medseg.submission.check import check_predictions

EXAMPLES = [(name, example) for name, facts in challenges().items() for example in facts.examples]


def cases_of(name: str, example: str) -> list[Case]:
    return [Case(case, (f"{case}.nii.gz",)) for case in ids(example, challenges()[name].number or 9)]


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_rules_are_those_that_are_stated(name: str, example: str) -> None:
    facts, cases = challenges()[name], cases_of(name, example)
    chosen = challenge_module(name).submitted(cases)
    assert len({one.member for one in chosen}) == len(chosen) == len(cases)
    assert contradictions(facts, chosen) == []


@pytest.mark.parametrize(("name", "example"), [(name, facts.examples[0]) for name, facts in challenges().items()])
def test_a_planted_fault_of_each_kind_is_refused(name: str, example: str, tmp_path: Path) -> None:
    facts, module = challenges()[name], challenge_module(name)
    cases = build(facts, example, tmp_path)
    chosen = module.submitted(cases)
    files = predict(facts, chosen, tmp_path / "predictions")
    checked = check_predictions(name, cases, tmp_path / "predictions", values=ARCHIVE_VALUES)
    assert checked.broken == [] and list(checked.files) == [one.member for one in chosen]

    spoilt = faults(values_of(facts, chosen[0]), volumes=files[0].suffix == ".gz")
    for file, spoil in zip(files, spoilt.values(), strict=False):
        spoil(file)
    files[-1].with_name(f"stray{''.join(files[-1].suffixes)}").write_bytes(files[-1].read_bytes())
    broken = check_predictions(name, cases, tmp_path / "predictions", values=ARCHIVE_VALUES).broken
    said = {problem.case: problem.message for problem in broken}
    for one, reason in zip(chosen, spoilt, strict=False):
        assert re.search(reason, said.pop(one.case.id)), (one.case.id, reason)
    ((stray, message),) = said.items()
    assert stray.startswith("stray") and "belongs to no case" in message


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_other_cases_are_refused(name: str, example: str) -> None:
    """One too few, one too many, and one of another set; where the number is free, none at all."""
    facts, cases = challenges()[name], cases_of(name, example)
    other = Case("of another set", ("x.nii.gz",))
    further = Case(ids(example, len(cases) + 1)[-1], ("y.nii.gz",))
    wrong = [cases[:-1], [*cases, further]] if facts.number else [[]]
    for section in [*wrong, *([] if facts.case == ".+" and facts.number else [[*cases[:-1], other]])]:
        with pytest.raises(DataError):
            challenge_module(name).submitted(section)


# ---------------------------------------------------------------------- the contract itself
@pytest.mark.parametrize("name", [name for name, facts in challenges().items() if facts.number])
def test_a_wrong_rule_contradicts(name: str) -> None:
    facts = challenges()[name]
    chosen = challenge_module(name).submitted(cases_of(name, facts.examples[0]))
    more = replace(facts, number=facts.number + 1)
    assert any("cases; stated are" in sentence for sentence in contradictions(more, chosen))
    renamed = [replace(one, member=f"seg_{one.case.id}.nii.gz") for one in chosen]
    assert any("is not stated" in sentence for sentence in contradictions(facts, renamed))


@pytest.mark.parametrize("name", [name for name, facts in challenges().items() if datasets()[facts.dataset].labels])
def test_wrong_values_contradict(name: str) -> None:
    facts = challenges()[name]
    chosen = challenge_module(name).submitted(cases_of(name, facts.examples[0]))
    values = values_of(facts, chosen[0])
    moved = [replace(chosen[0], values=(*values[:-1], values[-1] + 1))]
    assert any("values" in sentence for sentence in contradictions(facts, moved))
    silent = replace(facts, documented=(), unverified=())
    assert any("values" in sentence for sentence in contradictions(silent, chosen))
