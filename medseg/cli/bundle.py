"""``medseg bundle``."""

from __future__ import annotations

import argparse

HELP = "Build the configs of a bundle from its recipe.yaml, after a change of the recipe or of medseg/bundle/base."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["build"], help="write configs/*.yaml and LICENSE beside recipe.yaml")
    parser.add_argument(
        "bundle", nargs="?", metavar="BUNDLE", help="folder, or name of one of medseg's own (default: all of those)"
    )


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.build import build_bundle, recipe_folders

    for folder in recipe_folders(args.bundle):
        print(build_bundle(folder))
    return 0
