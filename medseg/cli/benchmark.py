"""``medseg benchmark``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

HELP = "Measure time, peak memory, parameters and multiply-adds of networks side by side, with intervals."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        action="append",
        required=True,
        metavar="[NAME=]N",
        help="a name of `medseg networks`, a MONAI class or a dotted path, repeat for each; the first is the baseline; "
        "NAME= tells two settings of one network apart",
    )
    parser.add_argument("--size", required=True, metavar="D,H,W", help="input in voxels, such as 96,96,96 or 512,512")
    parser.add_argument("--in_channels", type=int, default=1, metavar="C", help="of the input (default 1)")
    parser.add_argument("--out_channels", type=int, default=2, metavar="K", help="of the logits (default 2)")
    parser.add_argument("--batch_size", type=int, default=1, metavar="B", help="images per pass (default 1)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument("--threads", type=int, metavar="T", help="of the CPU (default: torch's)")
    parser.add_argument("--precision", default="fp32", metavar="P", help="fp32, bf16 or fp16 (default fp32)")
    parser.add_argument("--repeats", type=int, default=15, metavar="R", help="turns that count (default 15, least 6)")
    parser.add_argument("--train", action="store_true", help="measure a training step too")
    parser.add_argument(
        "--published", action="store_true", help="networks as published (default: as `medseg train` plans them here)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="N.KEY=VALUE",
        help="an argument of one network, such as ssh_unet.gate_type=gsm",
    )
    parser.add_argument("--output", metavar="FILE", help="write the result as JSON")


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.compose import parse_assignments
    from medseg.workflows.benchmark import benchmark
    from medseg.workflows.benchmark_table import benchmark_lines

    networks = named_networks(args.network)
    result = benchmark(
        networks,
        size=_size(args.size),
        in_channels=args.in_channels,
        out_channels=args.out_channels,
        batch_size=args.batch_size,
        device=args.device,
        threads=args.threads,
        precision=args.precision,
        repeats=args.repeats,
        train=args.train,
        published=args.published,
        arguments=split_arguments(parse_assignments(args.set), networks),
        output=args.output,
    )
    print("\n".join(benchmark_lines(result)))
    return 0


def named_networks(texts: Iterable[str]) -> dict[str, str]:
    """``["ssh_unet", "gsm=ssh_unet"]`` -> name in the table -> network.

    Raises:
        ConfigError: a name that comes twice.
    """
    from medseg.errors import ConfigError

    networks: dict[str, str] = {}
    for text in texts:
        name, separator, network = text.partition("=")
        if name in networks:
            raise ConfigError(
                f"'{name}' is measured already; tell two settings apart by --network other={network or name}."
            )
        networks[name] = network if separator else name
    return networks


def split_arguments(assignments: dict[str, Any], networks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``{"ssh_unet.gate_type": "gsm"}`` -> arguments per name; names may hold dots themselves.

    Raises:
        ConfigError: a name that is not measured.
    """
    from medseg.errors import ConfigError, nearest

    found: dict[str, dict[str, Any]] = {}
    for key, value in assignments.items():
        owners = [name for name in networks if key.startswith(f"{name}.")]
        if not owners:
            hint = nearest(key.partition(".")[0], networks)
            raise ConfigError(f"--set {key}: expected NAME.argument=value with a measured network.{hint}")
        owner = max(owners, key=len)
        found.setdefault(owner, {})[key.removeprefix(f"{owner}.")] = value
    return found


def _size(text: str) -> list[int]:
    from medseg.errors import ConfigError

    try:
        return [int(part) for part in text.replace("x", ",").split(",")]
    except ValueError as error:
        raise ConfigError(f"--size {text!r}: expected whole numbers separated by commas, such as 96,96,96.") from error
