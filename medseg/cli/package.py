"""``medseg package``."""

from __future__ import annotations

import argparse

HELP = "Pack a run or bundle into one zip with checksums, without caches, predictions and paths of this machine."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="RUN_OR_BUNDLE", help="folder of a run or a bundle")
    parser.add_argument("--output", required=True, metavar="FILE.zip", help="the archive to write")


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.package import pack

    path = pack(args.bundle, args.output)
    print(f"package: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return 0
