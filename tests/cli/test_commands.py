"""Options, help and examples of every command follow from its settings class and its row in the table."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from medseg.cli import main
from medseg.cli.commands import COMMANDS, Command
from medseg.cli.options import REQUIRED, Option, read_options
from medseg.cli.parser import CommandParser
from medseg.cli.values import form, values
from medseg.settings import Folder, takes

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(path for name in ("docs", "bundles", "data_json") for path in (ROOT / name).rglob("*.md")),
]
SCRIPTS = {"prepare": "prepare_data"}  # of another name


def shown(capsys: Any, *arguments: str) -> str:
    """The help of a command, on a terminal of 80 columns."""
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--help"])
    return str(capsys.readouterr().out)


def refused(capsys: Any, *arguments: str) -> str:
    """What is said of usage that argparse refuses, in one line."""
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))
    return " ".join(capsys.readouterr().err.split())


def given(name: str, *arguments: str) -> dict[str, Any]:
    parser = CommandParser(name)
    return values(parser.options, parser.parse(arguments))


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_the_fields(name: str) -> None:
    path, options = read_options(COMMANDS[name].function)
    module, _, settings = path.rpartition(".")
    described = getattr(importlib.import_module(module), settings)
    known = {field.name: field for field in dataclasses.fields(described)}
    fields = [known[argument] for argument in inspect.signature(described).parameters]
    fields = [field for field in fields if field.metadata.get("option", field.name) is not None]
    assert [option.name for option in options] == [field.name for field in fields]
    for option, field in zip(options, fields, strict=True):
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        assert (option.default is REQUIRED) == missing, option.name
        assert missing or option.default in (field.default, None) and (dict(field.metadata) == option.metadata)
        assert option.help and "(default)" not in option.help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_one_screen_with_two_examples(name: str, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys, *name.split()).splitlines()
    assert len(lines) <= 52
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"usage: medseg {name} [options]")
    examples = lines[lines.index("examples:") + 1 :][:2]
    assert "exit status: 0 done" in "".join(lines[-2:])
    for example in examples:
        program, *arguments = shlex.split(example)
        assert program == "medseg" and " ".join(arguments).startswith(name)
        parser = CommandParser(name)
        args = parser.parse(arguments[len(name.split()) :])
        assert COMMANDS[name].parts or not parser.missing(args)


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if isinstance(row.answer, str)])
def test_an_answer_names_existing_fields(name: str) -> None:
    path, _ = read_options(COMMANDS[name].function)
    module, _, settings = path.rpartition(".")
    fields = {field.name for field in dataclasses.fields(getattr(importlib.import_module(module), settings))}
    named = re.findall(r"\{([\w.]+)", str(COMMANDS[name].answer))
    assert named and set(named) <= {"result", "typed"} | {f"s.{field}" for field in fields}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_script(name: str) -> None:
    path = ROOT / "scripts" / f"{SCRIPTS.get(name, name.replace('-', '_').replace(' ', '_'))}.py"
    assert f'main(command="{name}")' in path.read_text(encoding="utf-8")


def test_pages_name_existing_options() -> None:
    """Every `medseg COMMAND …` and `scripts/COMMAND.py …` of a code block or between backticks."""
    found = 0
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name, rest in re.findall(r"(?:medseg|scripts/)\s?([a-z_-]+)(?:\.py)?\b([^\n`#]*)", pages):
        if name in COMMANDS:
            parser = CommandParser(name)
            words = re.findall(r"--[a-z_0-9]+", rest)
            known = [f"--{flag}" for option in parser.options for flag in option.names]
            if (parts := COMMANDS[name].parts) and (part := re.match(r" ([a-z]\w+)", rest)):
                known += [f"--{flag}" for option in parts.options(parts.module(part[1])) for flag in option.names]
            for word in words:
                assert word in [*known, "--list", "--trust_bundle", "--debug", "--help"], f"{name} {word}{rest}"
                found += 1
    assert found > 200


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, medseg.cli.parser as p; p.overview().format_help(); [p.CommandParser(n) for n in p.COMMANDS]; "
    code += "assert not {'torch', 'monai', 'numpy', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_commands_are_listed(capsys: Any) -> None:
    text = shown(capsys)
    assert [re.split(r"  +", line)[1] for line in text.splitlines() if re.match(r"  [a-z]", line)] == list(COMMANDS)
    assert "Train a network on a datalist" in text and "exit status" in text


def test_unknown_names_are_answered_with_the_nearest(capsys: Any) -> None:
    assert "'trian' is not a command. Did you mean 'train'?" in refused(capsys, "trian")
    said = refused(capsys, "train", "--network", "x", "--jsonlist=d.json")
    assert said.endswith("unrecognized arguments: --jsonlist. Did you mean '--json_list'?")
    assert "unrecognized arguments: --zzz." in refused(capsys, "networks", "--zzz")
    assert "COMMAND" in refused(capsys)


def test_one_of_two_is_required(capsys: Any) -> None:
    rest = ("train", "--json_list", "d.json", "--output", "o")
    assert "one of the arguments --network --bundle --from_original is required" in refused(capsys, *rest)
    assert "not allowed with argument" in refused(capsys, *rest, "--network", "a", "--bundle", "b")
    assert "one of the arguments --run --bundle is required" in refused(capsys, "infer", "--output", "o")
    assert given("infer", "--bundle", "b", "--output", "o")["bundle"] == Path("b")


def test_values_follow_from_the_types(capsys: Any) -> None:
    base = ("--network", "n", "--json_list", "~/d.json", "--output", "o")
    found = given("train", *base, "--fold", "all", "--set", "a=1", "--set", "b=x", "--overlay", "p", "--overlay", "q")
    assert found["json_list"] == Path("~/d.json").expanduser()
    assert (found["fold"], found["overrides"], found["overlays"]) == ("all", {"a": 1, "b": "x"}, ["p", "q"])
    assert given("train", *base, "--fold", "3")["fold"] == 3
    assert "seed" not in found  # the default stays in the settings class
    assert "argument --fold: 'x' is not a valid F|all" in refused(capsys, "train", *base, "--fold", "x")
    runs = ("--run", "a", "--run", "b", "--output", "o")
    assert given("ensemble", *runs, "--weights", "1,3", "--no_postprocess") == {
        "runs": [Path("a"), Path("b")], "output": Path("o"), "weights": (1.0, 3.0), "postprocess": False,
    }  # fmt: skip
    assert given("ensemble", *runs, "--weights", "dice")["weights"] == "dice"
    assert given("resolution", *runs, "--sizes", "0.5", "1")["sizes"] == [0.5, 1.0]
    assert given("export", "r", "--output", "o", "--sizes", "96,96,64", "8x8x8")["sizes"] == [(96, 96, 64), (8, 8, 8)]
    images = ("--output", "d.json", "--channel", "T1={case}_t1", "--label_names", "background, liver")
    assert given("datalist", *images) | {"output": ""} == {
        "output": "", "channels": {"T1": "{case}_t1"}, "label_names": ("background", "liver"),
    }  # fmt: skip
    size = ("--size", "96,96,96")
    nets = ("--network", "ssh_unet", "--network", "gsm=ssh_unet", "--network", "a.b.Net")
    assert given("benchmark", *size, *nets, "--set", "a.b.Net.width=3", "--set", "gsm.gate_type=x") == {
        "networks": {"ssh_unet": "ssh_unet", "gsm": "ssh_unet", "a.b.Net": "a.b.Net"}, "size": (96, 96, 96),
        "arguments": {"a.b.Net": {"width": 3}, "gsm": {"gate_type": "x"}},
    }  # fmt: skip
    for arguments, sentence in (
        (["datalist", "--output", "d.json", "--channel", "T1"], "expected NAME=PATTERN"),
        (["benchmark", *size, *nets, "--network", "ssh_unet"], "such as --network other=ssh_unet"),
        (["benchmark", *size, *nets, "--set", "gat_type=1"], "expected NAME.argument=value"),
    ):
        assert main(arguments) == 2
        assert sentence in capsys.readouterr().err
    assert "invalid choice: 'median'" in refused(capsys, "ensemble", *runs, "--method", "median")


@dataclasses.dataclass(frozen=True)
class BaseSettings:
    """What is shared.

    Attributes:
        place: folder to look in. A further sentence is not shown.
    """

    place: Folder = dataclasses.field(metadata={"positional": "DIR"})


@dataclasses.dataclass(frozen=True)
class DescribeSettings(BaseSettings):
    """What is described.

    Attributes:
        key: name of a value.
        level: percentage, 100 % at most.
        only: kind of value.
        start: number at the start.
        hidden: function for Python alone.
    """

    key: str | None = dataclasses.field(default=None, metadata={"positional": "KEY"})
    level: float = 50.0
    only: Literal["a", "b"] | None = None
    start: int = dataclasses.field(default_factory=lambda: 1)
    hidden: Any = dataclasses.field(default=print, metadata={"option": None})


@takes(DescribeSettings)
def describe(s: DescribeSettings) -> str:
    """Describe a value of a folder."""
    return f"{s.place} {s.key} {s.level} {s.only} {s.start}"


def test_a_type_that_no_option_has_is_refused() -> None:
    with pytest.raises(TypeError, match="place has the type Path, which no option has; use str, .*File"):
        form(Option("place", "Path", REQUIRED, "folder"))


def test_a_new_command_is_one_row(capsys: Any, monkeypatch: Any) -> None:
    """A name of two words, two positional arguments, fields of a base class, and a default known at run time only."""
    source = Path(__file__).read_text(encoding="utf-8")
    monkeypatch.setattr("medseg.cli.options._source", lambda module: source)
    function = f"{__name__}.describe"
    row = Command(function, "{s.place}: {result}", "DIR", "DIR KEY --only a")
    monkeypatch.setitem(COMMANDS, "run describe", row)
    assert main(["run", "describe", "x", "epochs", "--only", "b"]) == 0
    assert main(["x"], command="run describe") == 0
    assert capsys.readouterr().out.splitlines() == ["x: x epochs 50.0 b 1", "x: x None 50.0 None 1"]
    text = " ".join(shown(capsys, "run", "describe").split())
    assert text.startswith("usage: medseg run describe [options] DIR [KEY] Describe a value of a folder.")
    assert "DIR folder to look in KEY" in text and "hidden" not in text
    assert "--level L percentage, 100 % at most (default 50.0) --only {a,b} kind of value --start" in text
