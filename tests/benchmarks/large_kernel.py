"""The large-kernel depth-wise convolution against its direct form, and its share of 3D RepUX-Net, as ratios.

    PYTHONPATH=. python tests/benchmarks/large_kernel.py layer [--channels 48] [--size 48] [--kernel 21]
        [--train] [--direct_channels C] [--pairs 1] [--threads 1]
    PYTHONPATH=. python tests/benchmarks/large_kernel.py network [--size 96] [--kernel 21] [--train] [--pairs 1]

``layer`` alternates both forms in one process. The direct form works channel by channel, so ``--direct_channels`` may
run it on fewer of them (minutes otherwise, with gradients) and scale its time. ``network`` times the depth-wise layers
inside the published network, forward and backward, in both forms, and compares the logits; ``--no_direct`` leaves the
direct form out.

The bound is arithmetic: the forward at 48 channels and 48^3 does 0.79e9 operations (9 ms at the 87e9 a second that a
matrix product reached on the core it was measured on) and moves 0.1e9 bytes to and from memory (5 ms at 20e9 a second).
The layer takes about five times the bound: two thirds in the transforms themselves (MKL, 26e9 to 33e9 operations a
second), the rest in padding, cropping and reordering axes between them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medseg.networks import RepUXNet
from medseg.networks.layers.large_kernel import DepthwiseConv


def now() -> float:
    """Seconds of the processor, which other programs do not lengthen; with several threads, of the clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(run: Callable[[], object]) -> float:
    start = now()
    run()
    return now() - start


def layer(args: argparse.Namespace) -> None:
    part = args.direct_channels or args.channels
    fast = DepthwiseConv(3, args.channels, args.kernel).train(args.train)
    direct = DepthwiseConv(3, part, args.kernel, method="direct").train(args.train)
    with torch.no_grad():
        for ours, theirs in zip(direct.parameters(), fast.parameters(), strict=True):
            ours.copy_(theirs[:part])
    x = torch.randn(1, args.channels, *[args.size] * 3, requires_grad=args.train)

    def step(conv: nn.Module, image: Tensor) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.set_grad_enabled(args.train):
                y = conv(image)
                if args.train:
                    y.backward(torch.ones_like(y))
                return y.detach()

        return run

    quick, slow = step(fast, x), step(direct, x.detach()[:, :part].clone().requires_grad_(args.train))
    y = quick()  # the first run keeps the kernel's spectrum
    results: list[Tensor] = []
    times = [
        (seconds(quick), seconds(lambda: results.append(slow())) * args.channels / part) for _ in range(args.pairs)
    ]
    difference = float((results[0] - y[:, :part]).abs().max() / results[0].abs().max())
    ratio = statistics.median(b / a for a, b in times)
    what = "forward + backward" if args.train else "forward"
    print(
        f"{args.channels} channels, {args.size}^3, kernel {args.kernel}^3, {what}: "
        f"ours {statistics.median(t[0] for t in times):.3f} s, direct {statistics.median(t[1] for t in times):.3f} s"
        f"{f' (scaled from {part} channels)' if part != args.channels else ''}, 1/{ratio:.0f}; "
        f"largest difference {difference:.1e} of the largest value"
    )


class Clock:
    """Time that a network spends in its depth-wise layers: forward by hooks, backward between their gradients."""

    def __init__(self, network: nn.Module) -> None:
        self.total = self._start = 0.0
        for module in network.modules():
            if isinstance(module, DepthwiseConv):
                module.register_forward_pre_hook(self.start)
                module.register_forward_hook(self.stop)
                module.register_full_backward_pre_hook(self.start)
                module.register_full_backward_hook(self.stop)

    def start(self, *_: Any) -> None:
        self._start = now()

    def stop(self, *_: Any) -> None:
        self.total += now() - self._start


def network(args: argparse.Namespace) -> None:
    net = RepUXNet(3, 1, 5, kernel_size=args.kernel).train(args.train)
    clock = Clock(net)
    x = torch.randn(1, 1, *[args.size] * 3)

    def step() -> Tensor:
        with torch.set_grad_enabled(args.train):
            y = net(x)
            if args.train:
                y.square().mean().backward()
        return y.detach()

    logits: list[Tensor] = []
    for form in ("auto",) if args.no_direct else ("auto", "direct"):
        for module in net.modules():
            if isinstance(module, DepthwiseConv):
                module.method = form
        if form == "auto" and not args.train:
            step()  # keeps the kernels' spectra
        shares = []
        for _ in range(args.pairs):
            clock.total = 0.0
            total = seconds(lambda: logits.append(step()))
            shares.append((clock.total / total, total))
        share, total = sorted(shares)[len(shares) // 2]
        print(
            f"{args.size}^3, kernel {args.kernel}, {'training step' if args.train else 'forward'}, {form}: "
            f"{total:.2f} s, {share:.1%} of it in the depth-wise layers"
        )
    if not args.no_direct:
        print(f"largest difference of the logits {float((logits[0] - logits[-1]).abs().max()):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("layer", "network"))
    parser.add_argument("--channels", type=int, default=48)
    parser.add_argument("--direct_channels", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--kernel", type=int, default=21)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--no_direct", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.size = args.size or {"layer": 48, "network": 96}[args.what]
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    {"layer": layer, "network": network}[args.what](args)


if __name__ == "__main__":
    main()
