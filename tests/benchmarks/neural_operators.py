"""Time and memory of the neural-operator family against the original's order of operations (FFT form), as ratios.

    PYTHONPATH=.:tests/networks python tests/benchmarks/neural_operators.py [--network hnoseg_xs] [--size 64 96 96]
        [--pairs 5] [--train] [--threads 1] [--precision bf16] [--compile]

Medians over alternating runs in one process, of processor time: with one thread another process on the machine does
not change the ratio much. Memory is the peak above the state before the forward: by torch's own
record of allocations, and by the resident set of the process (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from measures import allocated_mib, resident_mib
from reference_neural_operators import forward as original

from medseg.networks import create_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="hnoseg_xs")
    parser.add_argument("--size", type=int, nargs="+", default=[64, 96, 96])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of ours")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net = create_network(args.network, spatial_dims=len(args.size), in_channels=4, out_channels=4).train(args.train)
    ours = torch.compile(net) if args.compile else net
    x = torch.randn(1, 4, *args.size)

    def step(forward: Callable[[torch.Tensor], torch.Tensor], precision: str = "fp32") -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            with (
                torch.set_grad_enabled(args.train),
                torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"),
            ):
                y = forward(x)
                if args.train:
                    y.float().square().mean().backward()
                return y

        return run

    runs = {"original": step(lambda v: original(net, v)), "ours": step(ours, args.precision)}
    results = {name: run().detach() for name, run in runs.items()}
    difference = (results["ours"].softmax(1) - results["original"].softmax(1)).abs().max()
    print(f"{args.network} on {args.size}: largest difference of probabilities {float(difference):.2g}")
    del results
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.pairs):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    memory = {name: (allocated_mib(run), resident_mib(run)) for name, run in runs.items()}
    for name in runs:
        ratio = statistics.median(a / b for a, b in zip(times[name], times["original"], strict=True))
        shares = [m / o for m, o in zip(memory[name], memory["original"], strict=True)]
        print(
            f"{name:<9} {statistics.median(times[name]):7.3f} s  ratio {ratio:.3f}  "
            f"allocated {memory[name][0]:6.0f} MiB ({shares[0]:.2f})  "
            f"resident {memory[name][1]:6.0f} MiB ({shares[1]:.2f})"
        )


if __name__ == "__main__":
    main()
