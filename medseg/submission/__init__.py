"""Submissions: predictions are checked by a challenge's rules, reported on, and packed into what it takes.

A module ``medseg/submission/challenges/<name>.py`` holds

* ``FACTS``: a ``ChallengeFacts``, with the rules that the organisers document, and those that could not be verified;
* ``submitted(cases, *, …) -> list[SubmittedCase]``: which of a datalist section's cases are submitted, and under which
  names; where the facts say it all, ``medseg.submission.fixed_set.fixed_cases(FACTS)``. It may take keyword arguments
  with defaults, which become options of ``medseg submit``. Raises ``DataError`` where they are not the challenge's
  cases. Values that a label map may hold are those of the data set; where its archive says them, of the datalist;
* where label maps on the image's grid are not what is asked for, ``check(prediction, submitted) -> Iterator[Finding]``
  for one case instead of ``check_label_map``, and ``pack(files, output)`` instead of ``write_zip``; ``files`` maps
  names of members to checked predictions.

Modules import heavy packages inside these functions, so that listing challenges is quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from medseg.errors import ConfigError, nearest
from medseg.submission import challenges as _challenges

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["ChallengeFacts", "SubmittedCase", "challenge_module", "challenges"]


@dataclass(frozen=True)
class ChallengeFacts:
    """What is fixed about a challenge.

    Attributes:
        title: its own name.
        dataset: module of ``medseg.datasets`` with its labels and terms.
        section: section of a datalist with the cases that are submitted.
        source: address where it is handed in.
        examples: ids of first cases, one per kind of name.
        documented: rules that the organisers state.
        unverified: rules taken from practice, that no document at hand confirms; they are checked as well.
        number: number of cases; 0: all of the section, whose number is not fixed.
        case: regular expression of the case ids.
        member: name of a file in the archive: ``{case}`` is the id, ``{0}`` the first group of ``case``.
        suffix: suffix of the file that is handed in.

    What ``number``, ``case`` and ``member`` say, ``documented`` or ``unverified`` states in words; tests compare them.
    """

    title: str
    dataset: str
    section: str
    source: str
    examples: tuple[str, ...]
    documented: tuple[str, ...]
    unverified: tuple[str, ...] = ()
    number: int = 0
    case: str = ".+"
    member: str = "{case}.nii.gz"
    suffix: str = ".zip"


@dataclass(frozen=True)
class SubmittedCase:
    """A case of a submission.

    Attributes:
        case: case of the datalist.
        member: name in the archive.
        values: label values that its label map may hold, where they are not those of the challenge's data set.
    """

    case: Case
    member: str
    values: tuple[int, ...] = ()


@cache
def challenges() -> dict[str, ChallengeFacts]:
    """Facts of all challenges by module name, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(_challenges.__path__))
    return {name: _module(name).FACTS for name in names}


def challenge_module(name: str) -> ModuleType:
    """The module of a challenge.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in challenges():
        raise ConfigError(f"No challenge '{name}'.{nearest(name, challenges())} All: {', '.join(challenges())}.")
    return _module(name)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{_challenges.__name__}.{name}")
