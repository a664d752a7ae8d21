"""``medseg import-weights``."""

from __future__ import annotations

import argparse

HELP = "Turn an original system's checkpoint into weights of our network (models/model.pt) and report every key."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", required=True, metavar="S", help="original system, such as sshunet")
    parser.add_argument(
        "--architecture", metavar="A", help="the original's class (default: the config's, or the only one)"
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="JSON or YAML of its constructor's arguments, or the original's own config",
    )
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="its checkpoint")
    parser.add_argument("--output", default="models/model.pt", metavar="FILE", help="default models/model.pt")


def run(args: argparse.Namespace) -> int:
    from medseg.weights.importing import import_weights

    report = import_weights(
        system=args.system,
        architecture=args.architecture,
        config=args.config,
        checkpoint=args.checkpoint,
        output=args.output,
    )
    print("\n".join(report.lines()))
    print(f"written: {args.output}")
    return 0
