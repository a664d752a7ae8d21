"""Time of QTSeg against the original's order of operations, as ratios.

    PYTHONPATH=.:tests/networks python tests/benchmarks/qtseg.py [--size 512] [--decoder dma] [--classes 2]
        [--pairs 5] [--train] [--parts] [--threads 1]

Medians over alternating runs in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import reference_qtseg as original
import torch
from torch import Tensor

from medseg.networks import QTSeg
from medseg.networks.kernels.channels_last import channels_last


def compare(name: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], pairs: int) -> None:
    """Print the medians of both and of their ratio."""
    difference = float((ours().detach() - theirs().detach()).abs().max())
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for run, taken in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    milliseconds = [1000 * statistics.median(taken) for taken in times]
    print(
        f"{name:<8} {milliseconds[0]:7.1f} ms, original {milliseconds[1]:7.1f} ms, ratio {ratio:.3f}, "
        f"best of each {min(times[0]) / min(times[1]):.3f}, largest difference {difference:.2g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--decoder", default="dma")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--parts", action="store_true", help="encoder, bridge and decoder apart")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net = QTSeg(2, 3, args.classes, decoder=args.decoder).train(args.train)
    x = torch.randn(args.batch, 3, args.size, args.size)

    def step(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.set_grad_enabled(args.train):
                y = forward()
                if args.train:
                    y.square().mean().backward()
                return y

        return run

    compare("network", step(lambda: net(x)), step(lambda: original.forward(net, x)), args.pairs)
    if not args.parts:
        return
    with torch.no_grad():
        features = net.encoder(channels_last(x))
        bridged = net.bridge(features)
        theirs = [f.contiguous() for f in features]
        theirs_bridged = [f.contiguous() for f in bridged]
    parts = (
        ("encoder", lambda: net.encoder(channels_last(x))[0], lambda: original.encode(x, net.encoder)[0]),
        ("bridge", lambda: net.bridge(features)[0], lambda: original.distribute(theirs, net.bridge)[0]),
        ("decoder", lambda: net.decoder(bridged), lambda: original.decode(theirs_bridged, net.decoder)[0]),
    )
    for name, ours, naive in parts:
        compare(name, step(ours), step(naive), args.pairs)


if __name__ == "__main__":
    main()
