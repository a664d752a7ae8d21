"""``medseg phantom``."""

from __future__ import annotations

import argparse

from medseg.cli import path_argument

HELP = "Write a small synthetic data set with its datalist, the same every time; no download."
_KINDS = ("organs", "lesions", "skin")  # those of medseg.data.phantom, which a help text must not import


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, type=path_argument, metavar="DIR", help="folder for the data set")
    parser.add_argument(
        "--kind",
        choices=_KINDS,
        default="organs",
        help="organs: CT-like; lesions: MR-like, three channels; skin: 2D photographs (default organs)",
    )
    parser.add_argument("--cases", type=int, default=24, metavar="N", help="labelled cases (default 24)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed gives other cases (default 0)")


def run(args: argparse.Namespace) -> int:
    from medseg.data.phantom import write_phantom

    print(f"datalist: {write_phantom(args.output, args.kind, args.cases, args.seed)}")
    return 0
