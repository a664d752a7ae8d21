"""Time of the whole `medseg infer` on a folder of pictures against that of its network alone.

    PYTHONPATH=. python tests/benchmarks/infer_pictures.py [--network qtseg] [--images 60] [--size 512] [--threads 1]
        [--pairs 1] [--set network_def::width=16 …]

Per pair: the network's forward passes alone, the command in this process, the forward passes again. Reading, checks,
writing and the loading of weights all count; the start of Python and its imports are shown apart. The ratio of CPU
seconds says what one core alone would do, and holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medseg.bundle.compose import parse_assignments
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device
from medseg.cli import main as command
from medseg.data import make_datalist
from medseg.networks import create_network
from medseg.weights import save_file
from medseg.workflows.new_bundle import new_bundle


def write_pictures(folder: Path, number: int, size: int) -> None:
    """Smooth colour pictures with noise (as large as PNG files of photographs are), and a mask for each."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    rows, columns = np.mgrid[:size, :size] / size
    for index in range(number):
        rng = np.random.default_rng(index)
        waves = [np.sin(rng.uniform(2, 9) * rows + rng.uniform(2, 9) * columns + channel) for channel in range(3)]
        pixels = 128 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 4, (size, size, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{index:03}.png")
        Image.fromarray((waves[0] > 0.5).astype(np.uint8) * 255).save(folder / "masks" / f"{index:03}.png")


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and CPU seconds of all threads."""
    clock, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="qtseg")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="ID=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder, args.images, args.size)
        datalist = make_datalist(folder / "images", folder / "masks", folder / "list.json").path
        window = {"roi_size": [args.size, args.size]}
        settings = window | parse_assignments(args.set)
        new_bundle(network=args.network, json_list=datalist, output=folder / "bundle", overrides=settings)
        definition = Bundle(folder / "bundle").recipe("infer").tree["network_def"]
        arguments = {key: value for key, value in definition.items() if key != "_target_"}
        torch.manual_seed(0)
        network = create_network(args.network, **arguments).eval().to(device())
        save_file(network.state_dict(), folder / "bundle" / "models" / "model.pt")
        picture = torch.randn(1, arguments["in_channels"], args.size, args.size, device=device())

        def alone() -> None:
            with torch.no_grad():
                for _ in range(args.images):
                    network(picture)
                if picture.is_cuda:
                    torch.cuda.synchronize()

        def infer(output: Path) -> None:
            images, bundle = folder / "images", folder / "bundle"
            status = command(["infer", str(images), "--bundle", str(bundle), "--output", str(output)])
            if status != 0 or len(list(output.glob("*.png"))) != args.images:
                sys.exit(f"infer ended with status {status}")

        with torch.no_grad():
            network(picture)
        ratios = []
        for pair in range(args.pairs):
            before, whole, after = (seconds(run) for run in (alone, lambda p=pair: infer(folder / f"out{p}"), alone))
            ratios.append(tuple(2 * w / (b + a) for b, w, a in zip(before, whole, after, strict=True)))
            print(
                f"network alone {before[0]:.2f} and {after[0]:.2f} s (CPU {before[1]:.2f} and {after[1]:.2f} s), "
                f"command {whole[0]:.2f} s (CPU {whole[1]:.2f} s)"
            )
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import medseg.workflows.prediction"], check=True)
        imports = time.perf_counter() - started
        wall, cpu = (statistics.median(ratio) for ratio in zip(*ratios, strict=True))
        print(f"command / network: {wall:.3f} in time, {cpu:.3f} in CPU seconds; imports {imports:.2f} s, once")


if __name__ == "__main__":
    main()
