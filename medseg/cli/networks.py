"""``medseg networks``."""

from __future__ import annotations

import argparse
import fnmatch

HELP = "List the registered networks with parameters, dimensions and paper."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'hno*'")


def run(args: argparse.Namespace) -> int:
    from medseg.networks.catalog import catalog

    rows = [facts for name, facts in catalog().items() if fnmatch.fnmatch(name, args.pattern)]
    print(f"{'name':<18}{'dims':<7}{'parameters':>12}  {'at':<34}paper")
    for facts in rows:
        dims = ",".join(f"{d}D" for d in facts.spatial_dims)
        print(f"{facts.name:<18}{dims:<7}{facts.parameters:>12,}  {facts.setting:<34}{facts.paper}")
    print("MONAI's own classes (SegResNet, DynUNet, SwinUNETR, …) and dotted paths work as --network too.")
    return 0
