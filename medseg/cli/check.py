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
    from medseg.data import make_plan, read_datalist
    from medseg.workflows.checks import check_cases

    datalist = read_datalist(args.json_list, args.data_dir)
    cases = [case for section in datalist.sections.values() for case in section]
    facts = check_cases(cases, datalist)
    print(f"{len(facts)} cases are sound. A plan for this machine's CPU:")
    print("\n".join(make_plan(datalist, facts).lines()))
    return 0
