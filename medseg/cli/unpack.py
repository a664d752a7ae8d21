"""``medseg unpack``."""

from __future__ import annotations

import argparse

HELP = "Check an archive of `medseg package` and unpack it: no path leaves the folder, every checksum fits."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.zip", help="the archive")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder that will hold the bundle's folder")
    parser.add_argument("--max_gib", type=float, metavar="G", help="largest size when unpacked (default 8)")


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.package import MAX_GIB, unpack

    print(f"bundle: {unpack(args.file, args.output, max_gib=MAX_GIB if args.max_gib is None else args.max_gib)}")
    return 0
