"""``medseg unpack``."""

from __future__ import annotations

import argparse

HELP = "Unpack a bundle of `medseg package`, once every member and checksum is sound."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", metavar="FILE", help="zip file")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the bundle's folder")


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.package import unpack

    folder = unpack(args.archive, args.output)
    print(f"bundle: {folder}\nnext: medseg infer --bundle {folder} --output DIR IMAGE")
    return 0
