"""``medseg datalist``."""

from __future__ import annotations

import argparse

HELP = "Make a datalist from a folder: MSD, nnU-Net raw data, BIDS, or folders of images and labels."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="DIR",
        help="MSD task, nnU-Net raw folder, BIDS data set, or a folder that holds images and labels",
    )
    parser.add_argument(
        "--layout", choices=("nnunet", "msd", "bids", "pairs"), help="of DIR (default: recognised by what it holds)"
    )
    parser.add_argument("--images", metavar="DIR", help="folder of the training images, instead of DIR")
    parser.add_argument("--labels", metavar="DIR", help="folder of their labels (of BIDS: which derivatives)")
    parser.add_argument("--test", metavar="DIR", help="folder of images without labels")
    parser.add_argument("--output", required=True, metavar="FILE", help="the datalist to write")
    parser.add_argument(
        "--modality",
        default="",
        metavar="A,B",
        help="names of the channels, such as CT or T1,FLAIR (of BIDS: which; pictures: RGB or grey, as they are)",
    )
    parser.add_argument(
        "--label_names",
        default="",
        metavar="A,B,…",
        help="names of the values 0, 1, 2, … (masks as pictures: of the values in order, such as 0 and 255), such as "
        "background,liver,tumour (default: the layout's, else the values found)",
    )
    parser.add_argument(
        "--image_pattern", metavar="P", help="image names, such as '{case}_0000.nii.gz' or '{case}/imaging.nii.gz'"
    )
    parser.add_argument("--label_pattern", metavar="P", help="label names, such as '{case}_seg.nii.gz'")
    parser.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="once per channel, such as 'T1={case}_t1.nii.gz' (default: {case}_0000, {case}_0001, … where there are)",
    )
    parser.add_argument(
        "--folds", type=int, metavar="K", help="deal K folds (default: the folder's own folds or splits, else 5)"
    )
    parser.add_argument(
        "--splits",
        metavar="FILE|NAME",
        help="nnU-Net's splits_final.json, a datalist whose sections and folds are taken, or a published one such as "
        "btcv (default: the splits_final.json that lies beside an nnU-Net folder)",
    )
    parser.add_argument(
        "--stratify",
        metavar="KEY",
        help="equal shares in every fold: 'labels', or a key of the cases, or a column of BIDS's participants.tsv",
    )
    parser.add_argument(
        "--subject_pattern",
        metavar="REGEX",
        help="the subject in a case's name, such as '^(sub-[0-9]+)'; stays in one fold (default: guessed from names "
        "such as patient00_slice03; '.*': each case is a subject of its own)",
    )
    parser.add_argument("--name", metavar="N", help="name of the data set (default: the folder's)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the folds (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")


def run(args: argparse.Namespace) -> int:
    from medseg.data import make_datalist
    from medseg.errors import ConfigError

    channels: dict[str, str] = {}
    for item in args.channel:
        name, separator, pattern = item.partition("=")
        if not separator or not name or name in channels:
            raise ConfigError(f"--channel {item!r}: expected NAME=PATTERN with a new name, such as 'T1={{case}}_t1'.")
        channels[name] = pattern
    made = make_datalist(
        args.output,
        folder=args.folder,
        layout=args.layout,
        images=args.images,
        labels=args.labels,
        test=args.test,
        image_pattern=args.image_pattern,
        label_pattern=args.label_pattern,
        channels=channels,
        modality=_names(args.modality),
        label_names=_names(args.label_names),
        num_folds=args.folds,
        subject_pattern=args.subject_pattern,
        stratify=args.stratify,
        splits=args.splits,
        name=args.name,
        seed=args.seed,
        overwrite=args.overwrite,
        strict=args.strict,
    )
    for note in made.notes:
        print(note)
    for warning in made.warnings:
        print(f"warning: {warning}")
    counts = [f"{number} {name}" for name, number in made.sections.items() if number]
    counts[0] += f" in {made.folds} folds" if made.folds else ""
    print(f"{made.path}: {', '.join(counts)} cases")
    print(f"its paths are relative to {made.root}")
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
