"""The one family of exceptions, each with the exit status that a command ends with.

A message is one sentence in three parts: what is wrong (value, file), what was expected, what to do.

| status | meaning |
|---|---|
| 0 | done |
| 1 | an error of medseg itself |
| 2 | usage or configuration |
| 3 | data |
| 4 | model or checkpoint |
| 5 | resources: memory, disk, device |
| 6 | finished, but some cases failed |
| 130, 143 | interrupted (SIGINT, SIGTERM) with the state saved |
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

__all__ = [
    "CasesFailed",
    "ConfigError",
    "DataError",
    "MedsegError",
    "ModelError",
    "ResourceError",
    "few",
    "nearest",
]


class MedsegError(Exception):
    """Base of all errors that a user can cause or fix."""

    status = 1


class ConfigError(MedsegError):
    """Usage or configuration: an unknown option, a wrong type or range, a run folder of another config."""

    status = 2


class DataError(MedsegError):
    """Datalists, images and labels."""

    status = 3


class ModelError(MedsegError):
    """Networks, checkpoints and bundles."""

    status = 4


class ResourceError(MedsegError):
    """Memory, disk or device."""

    status = 5


class CasesFailed(MedsegError):
    """The work is finished, but some cases failed; they are listed in a file."""

    status = 6


def few(names: Collection[object]) -> str:
    """At most five names for a sentence, and how many there are: ``a, b, c, d, e, … (12)``."""
    shown = ", ".join(str(name) for name in list(names)[:5])
    return f"{shown}, … ({len(names)})" if len(names) > 5 else shown or "none"


def nearest(name: object, known: Iterable[object], cutoff: float = 0.6) -> str:
    """Return " Did you mean 'x'?" for the known name closest to ``name``, or an empty string.

    ``cutoff``: least likeness, 0 to 1; 0.8 finds misspellings only.
    """
    by_lower = {candidate.lower(): candidate for candidate in sorted(map(str, known))}
    close = difflib.get_close_matches(str(name).lower()[:200], by_lower, n=1, cutoff=cutoff)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""
