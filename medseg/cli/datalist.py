"""``medseg datalist``."""

from __future__ import annotations

import argparse

HELP = "Make a datalist from a folder of images and a folder of labels."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the training images")
    parser.add_argument("--labels", required=True, metavar="DIR", help="folder of their labels, with equal names")
    parser.add_argument("--test", metavar="DIR", help="folder of images without labels")
    parser.add_argument("--output", required=True, metavar="FILE", help="the datalist to write")
    parser.add_argument(
        "--modality",
        default="",
        metavar="A,B",
        help="names of the channels, such as CT or T1,FLAIR (pictures: RGB or grey, as they are)",
    )
    parser.add_argument(
        "--label_names",
        default="",
        metavar="A,B,…",
        help="names of the values 0, 1, 2, … (masks as pictures: of the values in order, such as 0 and 255), such as "
        "background,liver,tumour (default: the values found)",
    )
    parser.add_argument("--image_pattern", metavar="P", help="image names, such as '{case}_0000.nii.gz'")
    parser.add_argument(
        "--label_pattern", default="{case}", metavar="P", help="label names, such as '{case}_seg.nii.gz'"
    )
    parser.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="once per channel, such as 'T1={case}_t1.nii.gz' (default: {case}_0000, {case}_0001, … where there are)",
    )
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="folds for cross-validation (default 5)")
    parser.add_argument(
        "--subject_pattern",
        metavar="REGEX",
        help="the subject in a case's name, such as '^(sub-[0-9]+)'; stays in one fold",
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
        args.images,
        args.labels,
        args.output,
        test=args.test,
        modality=_names(args.modality),
        label_names=_names(args.label_names),
        image_pattern=args.image_pattern,
        label_pattern=args.label_pattern,
        channels=channels,
        num_folds=args.folds,
        subject_pattern=args.subject_pattern,
        name=args.name,
        seed=args.seed,
        overwrite=args.overwrite,
        strict=args.strict,
    )
    for note in made.notes:
        print(note)
    for warning in made.warnings:
        print(f"warning: {warning}")
    print(f"{made.path}: {made.cases} training cases in {made.folds} folds, {made.tests} test cases")
    print(f"paths are relative to {made.root}: use --data_dir {made.root}")
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
