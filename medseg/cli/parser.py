"""The parsers: of ``medseg``, which lists the commands, and of each command."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from medseg.cli.commands import COMMANDS
from medseg.cli.options import REQUIRED, Option, read_options, read_summary
from medseg.cli.values import form, metavar, repeated
from medseg.errors import nearest
from medseg.version import __version__

__all__ = ["CommandParser", "overview"]

_EXIT_STATUS = """\
exit status: 0 done, 2 usage, 3 data, 4 model, 5 resources, 6 some cases
failed, 130/143 interrupted with the state saved"""
_WIDTH = 79


class _Parser(argparse.ArgumentParser):
    """Answers an option that is not known with the nearest one, before anything else."""

    def __init__(self, **kwargs: Any) -> None:
        def formatter(prog: str) -> argparse.HelpFormatter:
            return argparse.RawDescriptionHelpFormatter(prog, max_help_position=22)

        super().__init__(formatter_class=formatter, **kwargs)

    def refuse_unknown(self, argv: Iterable[str]) -> None:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        for text in argv:
            name = text.partition("=")[0]
            if text == "--":
                return
            if name.startswith("--") and " " not in name and not any(option.startswith(name) for option in known):
                self.error(f"unrecognized arguments: {name}.{nearest(name, known)}")


def overview() -> argparse.ArgumentParser:
    """The parser of ``medseg`` itself, which lists the commands."""
    indent = " " * (max(map(len, COMMANDS)) + 4)
    rows = [
        textwrap.fill(f"{f'  {name}':<{len(indent)}}{read_summary(c.function)}", _WIDTH, subsequent_indent=indent)
        for name, c in COMMANDS.items()
    ]
    parser = _Parser(
        prog="medseg",
        usage="medseg COMMAND [options]",
        description="Medical image segmentation on MONAI.",
        epilog="\n".join(["commands (`medseg COMMAND --help` shows the options):", *rows, "", _EXIT_STATUS]),
    )
    parser.add_argument("--version", action="version", version=f"medseg {__version__}")
    parser.add_argument("COMMAND", type=_unknown, help=argparse.SUPPRESS)
    return parser


def _unknown(command: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"'{command}' is not a command.{nearest(command, COMMANDS)}")


class CommandParser:
    """The parser of one command.

    Where data sets or challenges add options, none is required: ``--list`` needs none, and what is missing is said with
    the facts of the data set or challenge.
    """

    def __init__(self, name: str) -> None:
        command = COMMANDS[name]
        self.settings, self.options = read_options(command.function)
        self._lenient = command.parts is not None
        examples = "".join(f"\n  medseg {name} {example}".rstrip() for example in (command.example, command.another))
        self._parser = _Parser(
            prog=f"medseg {name}",
            usage=self._usage(f"medseg {name} [options]"),
            description=textwrap.fill(read_summary(command.function), _WIDTH),
            epilog=f"examples:{examples}\n\n{_EXIT_STATUS}",
            argument_default=argparse.SUPPRESS,
        )
        self._add(self._parser, self.options)
        switches = {"list": command.parts.about} if command.parts else {}
        if command.evaluates_bundles:
            switches["trust_bundle"] = "run what a bundle's config has besides known components"
        for switch, text in (switches | {"debug": "show the trace of an error and debug messages"}).items():
            self._parser.add_argument(f"--{switch}", action="store_true", help=text)

    def add_part(self, part: str, options: Iterable[Option]) -> None:
        """Add the options of a data set or a challenge."""
        self._add(self._parser.add_argument_group(f"options of {part}"), options)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """All that is given; argparse ends the process on a mistake, with status 2, and after ``--help``."""
        self._parser.refuse_unknown(argv)
        return self._parser.parse_intermixed_args(argv)

    def parse_known(self, argv: Sequence[str]) -> argparse.Namespace:
        """What is given of the options that are known so far."""
        return self._parser.parse_known_args([text for text in argv if text not in ("-h", "--help")])[0]

    def missing(self, args: argparse.Namespace) -> list[str]:
        """Required options that are not given."""
        required = [option for option in self.options if option.default is REQUIRED]
        return [f"--{option.names[0]}" for option in required if getattr(args, option.name, None) is None]

    def _usage(self, start: str) -> str:
        words = [start]
        by_name = {option.name: option for option in self.options}
        for option in self.options:
            flags = [f"--{name} {metavar(option)}" for name in option.names]
            others = [by_name[name] for name in _alternatives(option) if name in by_name]
            flags += [f"--{name} {metavar(other)}" for other in others for name in other.names]
            if word := option.metadata.get("positional"):
                word += " …" if repeated(option) else ""
                words.append(word if self._required(option) else f"[{word}]")
            elif option.default is REQUIRED or others:
                words.append(f"({' | '.join(flags)})" if len(flags) > 1 else flags[0])
        unbroken = " ".join(word.replace(" ", "\0") for word in words)
        return "\n       ".join(textwrap.wrap(unbroken, _WIDTH - 7)).replace("\0", " ")

    def _required(self, option: Option) -> bool:
        return option.default is REQUIRED and not self._lenient

    def _add(self, parser: argparse._ActionsContainer, options: Iterable[Option]) -> None:
        either: dict[str, argparse._ActionsContainer] = {}  # field -> group with those that may stand for it
        for option in options:
            arguments: dict[str, Any] = form(option) | {"help": _help(option)}
            if word := option.metadata.get("positional"):
                arguments["default"] = None  # argparse would convert what stands for nothing
                if not self._required(option):
                    arguments["nargs"] = "*" if arguments.pop("action", None) else "?"
                parser.add_argument(option.name, **arguments | {"metavar": word})
                continue
            into = either.get(option.name, parser)
            if "or" in option.metadata or len(option.names) > 1:
                into = parser.add_mutually_exclusive_group(required="or" in option.metadata or self._required(option))
                either |= dict.fromkeys(_alternatives(option), into)
            elif self._required(option):
                arguments["required"] = True
            for name in option.names:
                into.add_argument(f"--{name}", dest=option.name, **arguments)
                arguments["help"] = f"another name of --{option.names[0]}"


def _alternatives(option: Option) -> tuple[str, ...]:
    """The fields of which one may stand for this one."""
    given = option.metadata.get("or", ())
    return (given,) if isinstance(given, str) else tuple(given)


def _help(option: Option) -> str:
    """The first sentence about the field, and its default."""
    text = option.help.partition(". ")[0].rstrip(".").replace("%", "%%")
    if option.default is True:
        return f"no {text}" if "option" in option.metadata else f"{text} (default --{option.name})"
    if form(option).get("action") == "append":
        text += " (repeatable)"
    return f"{text} (default {option.shown})" if option.shown else text
