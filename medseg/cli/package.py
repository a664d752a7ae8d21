"""``medseg package``."""

from __future__ import annotations

import argparse

HELP = "Write a run or bundle as one zip file with checksums, without what only this machine needs."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="run or bundle folder with weights")
    parser.add_argument("--output", required=True, metavar="FILE", help="a new .zip file")


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.package import package

    for member in package(args.folder, args.output):
        print(member)
    print(f"written: {args.output}")
    return 0
