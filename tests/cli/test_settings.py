"""Commands are functions of one settings value, whose class describes every option."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re

import pytest

from medseg.cli.commands import COMMANDS, Command
from medseg.cli.options import read_options
from medseg.errors import ConfigError
from medseg.settings import takes


@dataclasses.dataclass(frozen=True)
class AddSettings:
    """What is added.

    Attributes:
        first: number.
        second: number (default 1).
    """

    first: int
    _: dataclasses.KW_ONLY
    second: int = 1


@takes(AddSettings)
def add(s: AddSettings) -> int:
    """The sum."""
    return s.first + s.second


def test_a_command_takes_fields_or_a_value() -> None:
    assert add(2, second=3) == add.of(AddSettings(2, second=3)) == 5
    assert str(inspect.signature(add)) == "(first: 'int', *, second: 'int' = 1) -> 'int'"
    assert inspect.getdoc(add) == f"The sum.\n\n{inspect.getdoc(AddSettings)}"
    with pytest.raises(ConfigError, match="^add has no setting 'secund'. Did you mean 'second'?"):
        add(2, secund=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="^add needs first"):
        add(second=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("row", COMMANDS.values(), ids=COMMANDS)
def test_every_field_is_described_once(row: Command) -> None:
    paths = (row.function, read_options(row.function)[0])
    command, settings = (
        getattr(importlib.import_module(path.rpartition(".")[0]), path.split(".")[-1]) for path in paths
    )
    fields = [field.name for field in dataclasses.fields(settings)]
    assert sorted(inspect.signature(command).parameters) == sorted(fields)
    classes = [one for one in reversed(settings.__mro__) if dataclasses.is_dataclass(one)]
    described = "".join((inspect.getdoc(one) or "").partition("Attributes:\n")[2] + "\n" for one in classes)
    assert re.findall(r"^    (\w+): \S", described, re.MULTILINE) == fields
    assert all(f"\n    {field}: " in (command.__doc__ or "") for field in fields)
