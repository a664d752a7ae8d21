"""``medseg new-bundle``."""

from __future__ import annotations

import argparse

from medseg.cli.options import add_nnunet

HELP = "Plan and write a bundle for a network and a datalist, without training it."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        required=True,
        metavar="N",
        help="a name of `medseg networks`, a MONAI class such as SegResNet, or a dotted path",
    )
    parser.add_argument("--json_list", required=True, metavar="FILE", help="datalist (Decathlon JSON)")
    parser.add_argument(
        "--data_dir", metavar="DIR", help="what the datalist's paths are relative to (default: its folder)"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the new bundle")
    parser.add_argument(
        "--fold", type=int, metavar="K", help="validation fold (default: the validation section, else fold 0)"
    )
    parser.add_argument("--device", metavar="D", help="plan for cpu or cuda (default: a GPU where there is one)")
    add_nnunet(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="ID=VALUE",
        help="any id of the config, such as learning_rate=0.001 or network_def::filters=[16,32]",
    )


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.compose import parse_assignments
    from medseg.workflows.new_bundle import new_bundle

    settings = new_bundle(
        network=args.network,
        json_list=args.json_list,
        data_dir=args.data_dir,
        output=args.output,
        fold=args.fold,
        device=args.device,
        overrides=parse_assignments(args.set),
        nnunet_plans=args.nnunet_plans,
        nnunet_configuration=args.nnunet_configuration,
    )
    print("\n".join(setting.line() for setting in settings))
    print(f"bundle: {args.output}")
    return 0
