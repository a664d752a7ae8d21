"""``medseg networks``."""

from __future__ import annotations

import argparse

HELP = "List the registered networks with parameters, dimensions and paper."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'hno*'")


def run(args: argparse.Namespace) -> int:
    from medseg.networks.catalog import networks

    rows = [
        (f.name, ",".join(f"{d}D" for d in f.spatial_dims), f"{f.parameters:,}", f.setting, f.paper)
        for f in networks(args.pattern)
    ]
    header = ("name", "dims", "parameters", "at", "paper")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for name, dims, parameters, setting, paper in (header, *rows):
        cells = (name.ljust(widths[0]), dims.ljust(widths[1]), parameters.rjust(widths[2]), setting.ljust(widths[3]))
        print("  ".join((*cells, paper)))
    print("MONAI's own classes (SegResNet, DynUNet, SwinUNETR, …) and dotted paths work as --network too.")
    return 0
