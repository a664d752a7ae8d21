"""The checks before the first iteration: all cases are read once, all problems are listed at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from medseg.data import CaseFacts, Datalist, Problem, inspect_cases
from medseg.errors import DataError

__all__ = ["check_cases", "problem_table"]

logger = logging.getLogger("medseg")


def check_cases(cases: Sequence[Mapping[str, Any]], datalist: Datalist) -> list[CaseFacts]:
    """Facts of all cases; warnings are logged.

    Raises:
        DataError: some case cannot be used; the message is the table of all problems.
    """
    facts = inspect_cases(cases, datalist.label_space, datalist.channels)
    problems = [problem for case in facts for problem in case.problems]
    for problem in problems:
        if problem.warning:
            logger.warning("%s: %s. %s", problem.case, problem.message, problem.remedy)
    errors = [problem for problem in problems if not problem.warning]
    if errors:
        raise DataError(
            f"{len(errors)} problems in {len({p.case for p in errors})} of {len(facts)} cases:\n{problem_table(errors)}"
        )
    return facts


def problem_table(problems: Sequence[Problem]) -> str:
    """A text table with case, problem and remedy."""
    rows = [("case", "problem", "what to do"), *((p.case, p.message, p.remedy) for p in problems)]
    widths = [min(60, max(len(row[i]) for row in rows)) for i in range(2)]
    return "\n".join(f"  {case:<{widths[0]}}  {message:<{widths[1]}}  {remedy}" for case, message, remedy in rows)
