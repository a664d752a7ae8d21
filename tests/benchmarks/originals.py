"""Time and memory of our networks and layers against the original's order of operations, as ratios.

    PYTHONPATH=.:tests/networks python tests/benchmarks/originals.py ssh_unet [--size 64 64 64] [--set gate_type=gsf …]
        [--train] [--precision bf16] [--compile] [--pairs 5] [--threads 1]

Medians over alternating runs in one process: with one thread of processor time, which other programs do not lengthen.
Memory is the peak above the state before a run, by torch's own record of allocations, and by the resident set of the
process (Linux). Of large kernels, the original's order is the direct convolution (minutes for the network).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reference_neural_operators
import reference_qtseg
import reference_ssh_unet
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from medseg.bundle.compose import parse_assignments
from medseg.networks import create_network
from medseg.networks.layers.large_kernel import DepthwiseConv


def direct(network: nn.Module, x: Tensor) -> Tensor:
    """Large kernels without FFT."""
    plain = deepcopy(network)
    for module in plain.modules():
        if isinstance(module, DepthwiseConv):
            module.method = "direct"
    result: Tensor = plain(x)
    return result


@dataclass(frozen=True)
class Subject:
    """What is measured: the original's order, size and channels of the image, arguments, and attributes to vary."""

    original: Callable[[Any, Tensor], Tensor]
    size: tuple[int, ...]
    in_channels: int
    out_channels: int
    variants: dict[str, dict[str, Any]] = field(default_factory=lambda: {"ours": {}})


OPERATORS = ("hnoseg_xs", "hnoseg", "fnoseg", "fno", "hartley_mha", "vnet_ds")
SUBJECTS = {name: Subject(reference_neural_operators.forward, (64, 96, 96), 4, 4) for name in OPERATORS} | {
    "qtseg": Subject(reference_qtseg.forward, (512, 512), 3, 2),
    "ssh_unet": Subject(
        lambda net, x: reference_ssh_unet.forward(net, x)[0],
        *((64, 64, 64), 1, 14),
        variants={mode: {"execution": mode} for mode in ("fast", "lean")},
    ),
    "repuxnet": Subject(direct, (96, 96, 96), 1, 5),
    "uxnet": Subject(direct, (96, 96, 96), 1, 5),
    "large_kernel": Subject(direct, (48, 48, 48), 48, 48),
}


def allocated_mib(run: Callable[[], object]) -> float:
    """Peak of the memory that torch allocated and had not yet freed."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    current = peak = 0
    events = (event for event in record.profiler.kineto_results.events() if event.name() == "[memory]")
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak / 2**20


def resident_mib(run: Callable[[], object]) -> float:
    """Peak of the resident set above what it was before."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(key)).split()[1])

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--size", type=int, nargs="+")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="ARGUMENT=VALUE")
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of ours")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    subject, size = SUBJECTS[args.subject], args.size or SUBJECTS[args.subject].size
    if args.subject == "large_kernel":
        net: nn.Module = DepthwiseConv(len(size), subject.in_channels, 21, **parse_assignments(args.set))
    else:
        channels = {"in_channels": subject.in_channels, "out_channels": subject.out_channels}
        net = create_network(args.subject, spatial_dims=len(size), **channels, **parse_assignments(args.set))
    net.train(args.train)
    x = torch.randn(args.batch, subject.in_channels, *size)

    def step(forward: Callable[[Tensor], Tensor], *, rough: bool = False) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.set_grad_enabled(args.train), torch.autocast("cpu", torch.bfloat16, enabled=rough):
                y = forward(x)
                if args.train:
                    y.float().square().mean().backward()
                return y.detach()

        return run

    runs = {"original": step(lambda image: subject.original(net, image))}
    for name, attributes in subject.variants.items():
        ours = deepcopy(net)
        for key, value in attributes.items():
            setattr(ours, key, value)
        runs[name] = step(torch.compile(ours) if args.compile else ours, rough=args.precision == "bf16")
    expected = runs["original"]()
    differences = {name: float((run() - expected).abs().max() / expected.abs().max()) for name, run in runs.items()}
    clock = time.process_time if args.threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.pairs):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    for name, run in runs.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times["original"], strict=True))
        print(
            f"{name:<9} {statistics.median(times[name]):7.3f} s  ratio {ratio:.3f}  allocated "
            f"{allocated_mib(run):6.0f} MiB  resident {resident_mib(run):6.0f} MiB  difference {differences[name]:.1e}"
        )


if __name__ == "__main__":
    main()
