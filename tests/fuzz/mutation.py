"""Spoil bytes and plain values, each mutation a function of one seed; and hold a call against the contract."""

from __future__ import annotations

import copy
import os
import random
import signal
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from medseg.errors import MedsegError

# FUZZ=50 makes fifty times as many.
_TIMES = int(os.environ.get("FUZZ", "1"))
_SECONDS = 10
_DEEP: Any = []
for _ in range(100):
    _DEEP = [_DEEP]
_HOSTILE: list[Any] = [
    *(None, True, -1, 0, 3, 2**70, -1.5, 1e308, float("inf"), float("nan"), 10**4000),
    *("", "x", "0", "..", "/", "x" * 5000, "\ud800", "a\0b", "$1/0", "@nothing", "%x", "2024-01-01", "ü\n", "::", "+a"),
    *([], {}, [[]], [None], {"": None}, {"0": 0}, [1, 2, 3], ["a", "a"], {"a": {"b": []}}, _DEEP),
]


class Hangs(BaseException):
    """A call took more than ten seconds; no ``except Exception`` takes it for something else."""


def mutations(examples: int) -> Callable[[Any], Any]:
    """A test of so many seeds, always the same ones."""

    def decorate(test: Any) -> Any:
        wanted = settings(
            max_examples=examples * _TIMES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a smaller seed is no simpler case
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        return wanted(given(seed=st.integers(0, 2**40))(test))

    return decorate


def survives(call: Callable[[], Any], *family: type[Exception]) -> bool:
    """Whether the call succeeds; errors of the family are answers, everything else is a fault."""

    def stop(*_: Any) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        call()
    except (MedsegError, *family) as error:
        assert len(str(error)) < 20_000
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def spoiled_bytes(content: bytes, seed: int) -> bytes:
    """One to three of: flipped, cut, zeroed, repeated, removed, inserted."""
    chance, data = random.Random(seed), bytearray(content)
    for _ in range(chance.randint(1, 3)):
        # Headers are where most of the meaning is.
        place = chance.randrange(min(len(data), 600) if chance.random() < 0.6 else len(data)) if data else 0
        span = chance.choice([1, 1, 2, 4, 8, 64])
        kind = chance.randrange(7)
        if kind == 0:
            del data[place:]
        elif kind == 1:
            data[place : place + span] = bytes(len(data[place : place + span]))
        elif kind == 2:
            data[place:place] = data[place : place + span]
        elif kind == 3:
            del data[place : place + span]
        elif kind == 4:
            data[place:place] = chance.randbytes(span)
        else:
            data[place : place + span] = chance.randbytes(len(data[place : place + span]))
    return bytes(data)


def spoiled_value(content: Any, seed: int) -> Any:
    """A copy in which one to three entries are replaced, removed or renamed."""
    chance, result = random.Random(seed), copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(result))
        if not places:
            return chance.choice(_HOSTILE)
        parent, key = chance.choice(places)
        kind = chance.randrange(6)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[chance.choice(["", "0", "x" * 300, "a::b", "$x", f"{key}x", "\0"])] = parent.pop(key)
        elif kind == 2:
            other, name = chance.choice(places)
            parent[key] = (
                copy.deepcopy(other.get(name) if isinstance(other, dict) else other[name % len(other)])
                if (other)
                else None
            )
        else:
            parent[key] = copy.deepcopy(chance.choice(_HOSTILE))
    return result


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)
