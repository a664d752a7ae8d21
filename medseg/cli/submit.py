"""``medseg submit``."""

from __future__ import annotations

import argparse

from medseg.cli import path_argument
from medseg.cli.listing import listing
from medseg.cli.options import add_options, describe_options, options_given

HELP = "Check predictions by a challenge's rules, report, and pack what it takes; --list shows the challenges."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("challenge", nargs="?", metavar="CHALLENGE", help="name, such as amos")
    parser.add_argument("--list", action="store_true", help="show the known challenges, or all about one")
    parser.add_argument(
        "--run", metavar="DIR", help="run or bundle folder; without --predictions it segments the cases first"
    )
    parser.add_argument("--predictions", metavar="DIR", help="label maps of medseg infer or ensemble, or of others")
    parser.add_argument("--json_list", metavar="FILE", help="datalist with the test images (default: the run's)")
    parser.add_argument("--data_dir", metavar="DIR", help="what the datalist's paths are relative to")
    parser.add_argument("--section", metavar="S", help="section of the datalist (default: the challenge's)")
    parser.add_argument(
        "--output", type=path_argument, metavar="FILE", help="the archive; its report is beside it, as .txt"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing archive")
    parser.add_argument("--checkpoint", default="best", metavar="C", help="best, last or a file (default best)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N")


def more_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """The named challenge's own options, such as ``--task 2``."""
    if args.challenge is not None:
        from medseg.submission import challenge_module

        add_options(parser, challenge_module(args.challenge).items)


def run(args: argparse.Namespace) -> int:
    from medseg.errors import ConfigError
    from medseg.submission import challenge_module, challenges

    if args.list or args.challenge is None:
        names = [args.challenge] if args.challenge else list(challenges())
        print("\n".join(line for name in names for line in _lines(name)))
        return 0
    module = challenge_module(args.challenge)
    if args.output is None:
        raise ConfigError(f"submit {args.challenge} needs --output, such as {args.challenge}{module.FACTS.suffix}.")
    from medseg.workflows.submission import submit

    submit(
        args.challenge,
        args.output,
        run=args.run,
        predictions=args.predictions,
        json_list=args.json_list,
        data_dir=args.data_dir,
        section=args.section,
        checkpoint=args.checkpoint,
        device=args.device,
        overwrite=args.overwrite,
        show=print,
        options=options_given(args, module.items),
    )
    print(f"written: {args.output}")
    return 0


def _lines(name: str) -> list[str]:
    from medseg.submission import challenge_module

    module = challenge_module(name)
    facts = module.FACTS
    rows = [("where", facts.source), ("data", f"{facts.dataset}, section {facts.section}")]
    rows += [("rule", rule) for rule in facts.documented]
    rows += [("practice", f"{rule} (not verified)") for rule in facts.unverified]
    rows.append(("options", describe_options(module.items)))
    return listing(f"{name}: {facts.title}", rows)
