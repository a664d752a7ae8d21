"""The command line: ``medseg <command>``; each command is one module with ``HELP``, ``arguments(parser)`` and
``run(args)``; where a named part adds options of its own (a data set, a challenge), ``more_arguments(parser, args)``
adds them once the part is known.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg import __version__
from medseg.cli.process import open_streams, stopped_by_sigterm
from medseg.errors import MedsegError
from medseg.faults import unwrapped

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    "train",
    "validate",
    "postprocess",
    "infer",
    "ensemble",
    "submit",
    "compare",
    "resolution",
    "report",
    "export",
    "priors",
    "check",
    "datalist",
    "prepare",
    "networks",
    "benchmark",
    "new-bundle",
    "import-weights",
    "package",
    "unpack",
    "phantom",
)

# They evaluate a bundle's config, and so run what it holds.
_EVALUATE_BUNDLES = ("train", "validate", "infer", "ensemble", "submit", "resolution", "export", "check")

_HELP = {"-h", "--help"}

_EPILOG = (
    "exit status: 0 done, 2 usage, 3 data, 4 model, 5 resources, 6 some cases failed, "
    "130/143 interrupted with the state saved"
)


def main(argv: Sequence[str] | None = None, command: str | None = None) -> int:
    """Run a command; returns its exit status.

    Args:
        argv: arguments, default ``sys.argv[1:]``.
        command: the command where a script already is one.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if command is not None:
        argv = [command, *argv]
    open_streams()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.raiseExceptions = False  # a log that cannot be written is no reason for a trace
    args = _parse(argv)
    try:
        with stopped_by_sigterm(), unwrapped(_place(args)), _trust(args):
            status = int(importlib.import_module(f"medseg.cli.{args.module}").run(args) or 0)
            sys.stdout.flush()
            return status
    except MedsegError as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as error:
        if error.code == 143:
            print("stopped by SIGTERM; files that are there are whole", file=sys.stderr)
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # ours: one sentence for the user, the trace with --debug
        if args.debug:
            traceback.print_exc()
        print(
            f"internal error: {type(error).__name__}: {error}. Run again with --debug for the trace.", file=sys.stderr
        )
        return 1


def _parse(argv: list[str]) -> argparse.Namespace:
    """Parse in two steps where a named part adds options; argparse ends the process on a mistake, with status 2."""
    parser = _parser()
    more = _more_arguments(argv)
    # The help of such a command waits for its part's options.
    args, unknown = parser.parse_known_args([text for text in argv if text not in _HELP] if more else argv)
    logging.getLogger("medseg").setLevel(logging.DEBUG if args.debug else logging.INFO)
    if more and (unknown or _HELP & set(argv)):
        try:
            more(args.parser, args)
        except MedsegError as error:  # no part of that name
            args.parser.error(str(error))
    return parser.parse_args(argv)


def _more_arguments(argv: list[str]) -> Callable[[argparse.ArgumentParser, argparse.Namespace], None] | None:
    """The function of the named command that adds a part's options."""
    if not argv or argv[0] not in COMMANDS:
        return None
    return getattr(importlib.import_module(f"medseg.cli.{argv[0].replace('-', '_')}"), "more_arguments", None)


def _place(args: argparse.Namespace) -> str | None:
    """Where a command writes."""
    places = (getattr(args, name, None) for name in ("output", "run"))
    return next((str(place) for place in places if isinstance(place, (str, Path))), None)


def _trust(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    if not getattr(args, "trust_bundle", False):
        return contextlib.nullcontext()
    from medseg.bundle.trust import trusted_bundles

    return trusted_bundles()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medseg", description="Medical image segmentation on MONAI.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"medseg {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module_name = name.replace("-", "_")
        module = importlib.import_module(f"medseg.cli.{module_name}")
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP, epilog=_EPILOG)
        module.arguments(sub)
        if name in _EVALUATE_BUNDLES:
            sub.add_argument(
                "--trust_bundle", action="store_true", help="run what a bundle's config holds besides known components"
            )
        sub.add_argument("--debug", action="store_true", help="show the full trace of an error and debug messages")
        sub.set_defaults(module=module_name, parser=sub)
    return parser


def path_argument(value: str) -> Path:
    """An argparse type: a path, with ``~`` expanded."""
    return Path(value).expanduser()
