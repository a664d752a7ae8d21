"""``medseg train``."""

from __future__ import annotations

import argparse

from medseg.cli.options import add_nnunet

HELP = "Train a network on a datalist; the same command again continues a run."


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--network", metavar="N", help="a name of `medseg networks`, a MONAI class such as SegResNet, or a dotted path"
    )
    what.add_argument("--bundle", metavar="DIR", help="a bundle folder such as bundles/ssh_unet_btcv_ct_segmentation")
    parser.add_argument(
        "--json_list", required=True, metavar="FILE", help="datalist (Decathlon JSON), or YAML that joins several"
    )
    parser.add_argument(
        "--data_dir", metavar="DIR", help="what the datalist's paths are relative to (default: its folder)"
    )
    parser.add_argument(
        "--fold",
        type=fold_argument,
        metavar="K|all",
        help="validation fold (default: the validation section, else fold 0); all: one run per fold",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--epochs", type=int, metavar="E", help="passes over the training cases")
    parser.add_argument(
        "--max_minutes",
        type=float,
        metavar="M",
        help="time for the whole training; it drives the learning rate and the end",
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of every random number (default 0)")
    parser.add_argument(
        "--overlay", action="append", default=[], metavar="NAME", help="a further config of the bundle, such as gsm"
    )
    parser.add_argument(
        "--transfer", metavar="RUN|FILE", help="start from the weights of a run, a bundle or a checkpoint file"
    )
    parser.add_argument(
        "--reinitialize",
        action="append",
        default=[],
        metavar="PATTERN",
        help="with --transfer: tensors that start anew besides a head of other labels, such as 'decoder*'",
    )
    parser.add_argument("--partial", action="store_true", help="with --transfer: take what fits, leave the rest")
    parser.add_argument(
        "--new_tasks_only",
        action="store_true",
        help="with --transfer of a run on several data sets: learn the tasks that it lacks, leave the others",
    )
    add_nnunet(parser)
    parser.add_argument(
        "--replay",
        type=float,
        metavar="SHARE",
        help="with --transfer of a run on several data sets: share of the cases drawn from those data sets",
    )
    parser.add_argument(
        "--distill",
        type=float,
        metavar="WEIGHT",
        help="with --transfer of a run on several data sets: hold its answers for its tasks, by a loss of this weight",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="ID=VALUE",
        help="any id of the config, such as learning_rate=0.001",
    )


def fold_argument(text: str) -> int | str:
    """A fold's number, or ``all``."""
    return text if text == "all" else int(text)


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.compose import parse_assignments
    from medseg.workflows.folds import train_folds
    from medseg.workflows.training import TrainSettings, train

    every = args.fold == "all"
    settings = TrainSettings(
        output=args.output,
        json_list=args.json_list,
        data_dir=args.data_dir,
        fold=None if every else args.fold,
        network=args.network,
        bundle=args.bundle,
        epochs=args.epochs,
        max_minutes=args.max_minutes,
        device=args.device,
        seed=args.seed,
        overrides=parse_assignments(args.set),
        nnunet_plans=args.nnunet_plans,
        nnunet_configuration=args.nnunet_configuration,
        overlays=args.overlay,
        transfer=args.transfer,
        reinitialize=args.reinitialize,
        partial=args.partial,
        new_tasks_only=args.new_tasks_only,
        replay=args.replay,
        distill=args.distill,
    )
    print(f"run: {(train_folds if every else train).of(settings)}")
    return 0
