"""Time and memory of SSH-UNet's execution modes against the original's order of operations, as ratios.

    PYTHONPATH=.:tests/networks python tests/benchmarks/ssh_unet.py [--size 64] [--gate tsm] [--vfn]
        [--pairs 5] [--train] [--small] [--threads 1]

Medians over alternating runs in one process. Memory is the peak above the state before the forward: by
torch's own record of allocations, and by the resident set of the process (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from measures import allocated_mib, resident_mib
from reference_ssh_unet import forward as original

from medseg.networks import SSHUNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--gate", default="tsm")
    parser.add_argument("--vfn", action="store_true")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--small", action="store_true", help="three levels of 8, 16, 32 channels")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    small = {"kernel_size": [(1, 3, 3)] * 3, "strides": [(1, 1, 1), (2, 2, 2), (2, 2, 2)], "filters": [8, 16, 32]}
    options = {"gate_type": args.gate, "vfn": args.vfn, **(small if args.small else {})}
    nets = {mode: SSHUNet(3, 1, 14, execution=mode, **options).train(args.train) for mode in ("fast", "lean")}
    nets["lean"].load_state_dict(nets["fast"].state_dict())
    x = torch.randn(args.batch, 1, args.size, args.size, args.size)

    def step(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            with torch.set_grad_enabled(args.train):
                y = forward(x)
                if args.train:
                    y.square().mean().backward()
                return y

        return run

    runs = {"original": step(lambda v: original(nets["fast"], v)[0]), **{m: step(n) for m, n in nets.items()}}
    reference = runs["original"]().detach()
    for name, run in runs.items():
        print(f"{name}: largest difference {float((run().detach() - reference).abs().max()):.2g}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.pairs):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    for name, run in runs.items():
        seconds = statistics.median(times[name])
        ratios = [a / b for a, b in zip(times[name], times["original"], strict=True)]
        print(
            f"{name:<9} {seconds:7.3f} s  ratio {statistics.median(ratios):.3f}  "
            f"allocated {allocated_mib(run):6.0f} MiB  resident {resident_mib(run):6.0f} MiB"
        )


if __name__ == "__main__":
    main()
