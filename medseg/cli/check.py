"""``medseg check``."""

from __future__ import annotations

import argparse

HELP = "Read every case of a datalist once and list all problems with their remedies."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json_list", required=True, metavar="FILE", help="datalist")
    parser.add_argument(
        "--data_dir", metavar="DIR", help="what the datalist's paths are relative to (default: its folder)"
    )
    parser.add_argument(
        "--fold", type=int, metavar="K", help="also check that each label occurs in this fold's training cases"
    )
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")


def run(args: argparse.Namespace) -> int:
    from medseg.data import make_plan
    from medseg.workflows.checks import check_datalist

    datalist, training, facts = check_datalist(args.json_list, args.data_dir, fold=args.fold, strict=args.strict)
    print(f"{len(facts)} cases are sound. A plan for this machine's CPU:")
    print("\n".join(make_plan(datalist, facts, num_training=len(training)).lines()))
    return 0
