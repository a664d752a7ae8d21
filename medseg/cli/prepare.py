"""``medseg prepare``."""

from __future__ import annotations

import argparse

from medseg.cli import path_argument
from medseg.cli.listing import listing
from medseg.cli.options import add_options, describe_options, options_given

HELP = "Turn the unpacked archive of a public data set into a checked datalist; --list shows the data sets."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="name, such as btcv")
    parser.add_argument("--list", action="store_true", help="show the known data sets, or all about one")
    parser.add_argument("--raw", type=path_argument, metavar="DIR", help="the unpacked archive; nothing in it changes")
    parser.add_argument(
        "--out", "--output", type=path_argument, metavar="DIR", help="folder for the datalist and what is converted"
    )


def more_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """The named data set's own options, such as ``--task 2``."""
    if args.dataset is not None:
        from medseg.datasets import dataset_module

        add_options(parser, dataset_module(args.dataset).prepare)


def run(args: argparse.Namespace) -> int:
    from medseg.datasets import dataset_module, datasets
    from medseg.errors import ConfigError

    if args.list or args.dataset is None:
        names = [args.dataset] if args.dataset else list(datasets())
        print("\n".join(line for name in names for line in _lines(name)))
        return 0
    module = dataset_module(args.dataset)
    if args.raw is None or args.out is None:
        raise ConfigError(
            f"prepare {args.dataset} needs --raw (the unpacked archive: {module.FACTS.layout}) and --out. "
            f"Where to get it: {module.FACTS.source}."
        )
    from medseg.workflows.prepare import prepare

    prepared = prepare(args.dataset, args.raw, args.out, **options_given(args, module.prepare))
    print("\n".join(prepared.lines()))
    return 0


def _lines(name: str) -> list[str]:
    from medseg.datasets import dataset_module

    module = dataset_module(name)
    facts = module.FACTS
    labels = [label for value, label in sorted(facts.labels.items()) if value]
    rows = {
        "images": f"{facts.spatial_dims}D {', '.join(facts.modality) or '(modality as the archive says)'}",
        "labels": f"{len(labels)}: {', '.join(labels)}" if labels else "as the archive says",
        "splits": ", ".join(f"{number} {section}" for section, number in facts.splits.items()),
        "source": facts.source,
        "terms": facts.terms,
        "--raw": facts.layout,
        "options": describe_options(module.prepare),
    }
    return listing(f"{name}: {facts.title}", rows.items())
