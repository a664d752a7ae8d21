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
    from medseg.weights import import_with_report, read_state_dict, save_file
    from medseg.weights.original import read_config

    architecture, constructor = read_config(args.config, args.system, args.architecture)
    network, report = import_with_report(args.system, architecture, constructor, read_state_dict(args.checkpoint))
    save_file(network.state_dict(), args.output)
    print("\n".join(report.lines()))
    print(f"written: {args.output}")
    return 0
