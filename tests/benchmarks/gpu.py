"""Times and memory of the networks on a GPU, and how busy medseg's training loop keeps it, in at most four minutes.

    PYTHONPATH=. python tests/benchmarks/gpu.py [--device cuda] [--only ssh_unet …] [--quick] [--seconds 240]

Medians in ms, batch 1; float32 without TF32; a step is forward and backward in bf16. Every row is a process with a
time limit of its own, so that one that hangs or fails takes no other with it. ``--device cpu --quick`` tries all of it
on small inputs.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

BRATS, CUBE = (4, 155, 240, 240), (1, 96, 96, 96)
_WIDTHS = {"filters": [32, 64, 128, 256, 320, 320], "kernel_size": [3] * 6, "strides": [1, 2, 2, 2, 2, 2]}
NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    **dict.fromkeys(("hnoseg_xs", "hnoseg", "fnoseg", "hartley_mha", "vnet_ds"), (BRATS, {"out_channels": 4})),
    **dict.fromkeys(("ssh_unet", "repuxnet", "uxnet", "hermes_resunet", "hermes_medformer"), (CUBE, {})),
    "DynUNet": (CUBE, {**_WIDTHS, "upsample_kernel_size": [2] * 5}),
    "SegResNet": (CUBE, {"init_filters": 16}),
    "SwinUNETR": (CUBE, {"feature_size": 48}),
    "UNETR": (CUBE, {"img_size": CUBE[1:]}),
}
LOOPS: dict[str, dict[str, Any]] = {
    "loop": {},  # as planned
    "loop, per case": {"augment_on_device": False},
    "loop 96³": {"roi_size": [96, 96, 96]},
    "loop 128³": {"roi_size": [128, 128, 128]},
}
LAYOUTS = {f"{name}, channels-last": name for name in ("vnet_ds", "uxnet", "repuxnet", "hermes_resunet", "DynUNet")}
COMPILED = {f"{name}, compiled": name for name in ("hnoseg_xs", "ssh_unet")}  # for medseg/bundle/compile_choice.py
ROWS = [*NETWORKS, "augmentation", *LOOPS, *LAYOUTS, *COMPILED]  # compiling takes longest, so it is last
COLUMNS = ("fwd fp32", "fwd bf16", "step bf16")
_ROW = 60  # seconds that a row may take
_REPEATS = 9


def main() -> int:
    """Print a line per network and one for the loop as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--quick", action="store_true", help="small inputs, few repeats")
    parser.add_argument("--seconds", type=float, default=240, help="time for all rows")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # what the process of a row does
    options = parser.parse_args()
    if options.row is not None:
        others = {
            "augmentation": augmentation,
            **dict.fromkeys(LOOPS, loop),
            **dict.fromkeys(LAYOUTS, channels_last),
            **dict.fromkeys(COMPILED, compiled),
        }
        print(json.dumps(others.get(options.row, network)(options)))
        return 0
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    print(f"{card}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n")
    print(f"| network, input | {' | '.join(COLUMNS)} | MiB {' / '.join(COLUMNS)} |\n|---|--:|--:|--:|---|", flush=True)
    end, failed = time.monotonic() + options.seconds, 0
    for name in options.only:
        limit = min(_ROW, end - time.monotonic())
        line = one_row(name, options, limit) if limit > 5 else f"| {name} | no time was left |"
        failed += line.count("|") < 4
        print(line, flush=True)
    return int(failed > 0)


def one_row(name: str, options: argparse.Namespace, limit: float) -> str:
    """The line of a network or of the loop, or why there is none."""
    command = [sys.executable, __file__, "--row", name, "--device", options.device, *["--quick"] * options.quick]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"| {name} | stopped after {limit:.0f} s |"
    if done.returncode:
        return f"| {name} | failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:160]} |"
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return f"| {name} {' | '.join(found)} |"


def network(options: argparse.Namespace) -> list[str]:
    """The cells of a network's row."""
    net, x = made(options.row, options)

    def forward(dtype: torch.dtype | None) -> Callable[[], Any]:
        def run() -> Any:
            with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
                return net(x)

        return run

    net.eval()
    with torch.no_grad():
        found = [measured(forward(dtype), options) for dtype in (None, torch.bfloat16)]
    net.train()
    found.append(measured(lambda: step(net, x), options))
    return [
        "×".join(map(str, x.shape[1:])),
        *(f"{1000 * seconds:.1f}" for seconds, _ in found),
        " / ".join(f"{mib:.0f}" for _, mib in found),
    ]


def made(name: str, options: argparse.Namespace) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network on the device, and its input."""
    from medseg.networks import catalog, create_network
    from medseg.networks.kernels.float32 import full_float32

    shape, more = NETWORKS[name]
    size = (32, 32, 64) if options.quick else shape[1:]
    facts = catalog().get(name)
    arguments = {"spatial_dims": 3, "in_channels": shape[0], "out_channels": facts.channels[1] if facts else 14} | more
    if "img_size" in arguments:
        arguments["img_size"] = size
    full_float32()
    return create_network(name, **arguments).to(options.device), torch.randn(1, shape[0], *size, device=options.device)


def step(net: torch.nn.Module, x: torch.Tensor) -> None:
    """Forward and backward in bf16."""
    with torch.autocast(x.device.type, torch.bfloat16):
        result = net(x)
    heads = result if isinstance(result, (list, tuple)) else [result]
    sum(head.float().square().mean() for head in heads).backward()
    net.zero_grad(set_to_none=True)


def channels_last(options: argparse.Namespace) -> list[str]:
    """The cells of a network's row whose weights and input lie channels-last: a step before and after."""
    net, x = made(LAYOUTS[options.row], options)
    before, _ = measured(lambda: step(net, x), options)
    net, x = net.to(memory_format=torch.channels_last_3d), x.to(memory_format=torch.channels_last_3d)
    return cells_of_change(net, x, options, before, "channels-last")


def compiled(options: argparse.Namespace) -> list[str]:
    """The cells of a compiled network's row: a step before and after, and how long its first one took."""
    net, x = made(COMPILED[options.row], options)
    eager, _ = measured(lambda: step(net, x), options)
    net.compile(dynamic=False)
    began = time.perf_counter()
    step(net, x)
    if x.is_cuda:
        torch.cuda.synchronize()
    first = time.perf_counter() - began
    return [*cells_of_change(net, x, options, eager, "compiled"), f"{first:.0f} s to compile"]


def cells_of_change(
    net: torch.nn.Module, x: torch.Tensor, options: argparse.Namespace, before: float, change: str
) -> list[str]:
    """The input's size, the seconds of a step before a change as ms, and those after it."""
    after, _ = measured(lambda: step(net, x), options)
    return ["×".join(map(str, x.shape[1:])), f"{1000 * before:.1f} step", f"{1000 * after:.1f} {change}"]


def augmentation(options: argparse.Namespace) -> list[str]:
    """The cells of the augmentation's row: copying and changing a batch as each recipe says, mean over its draws."""
    sys.path.append(str(Path(__file__).parents[1] / "transforms"))
    from augmented_cases import case, steps_of
    from monai.data import Dataset
    from monai.transforms import Compose

    from medseg.data import make_loader
    from medseg.data.dataset import SeededDataset
    from medseg.engines import PrepareAugmented
    from medseg.transforms.delayed_forms import delayed

    roi = (16,) * 3 if options.quick else (128,) * 3
    cells = []
    for recipe in ("light", "nnunet"):
        chain = Compose(delayed(steps_of(recipe, roi)))
        repeats = 2 if options.quick else 10
        dataset = SeededDataset(Dataset([case(roi, number) for number in range(2)], chain), seed=0, repeats=repeats)
        batches, prepare = list(make_loader(dataset, batch_size=2)), PrepareAugmented(dataset)
        prepare(batches[0], torch.device(options.device), True)

        def all_batches(batches: Any = batches, prepare: Any = prepare) -> None:
            for batch in batches:
                prepare(batch, torch.device(options.device), True)

        cells.append(f"{1000 * measured(all_batches, options)[0] / len(batches):.1f} {recipe}")
    return [f"2×2×{'×'.join(map(str, roi))}", *cells]


def measured(run: Callable[[], Any], options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds and the largest memory in MiB (0 on a CPU), after two runs that do not count."""
    cuda = options.device.startswith("cuda")
    times = []
    for number in range(2 + (1 if options.quick else _REPEATS)):
        if cuda and number == 2:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:]), torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0


def loop(options: argparse.Namespace) -> list[str]:
    """The cells of the loop's row: an iteration of a training, the bare step, and the GPU's utilisation."""
    from medseg.data.phantom import write_phantom
    from medseg.workflows.benchmark_steps import Candidate, Conditions, times
    from medseg.workflows.training import train

    changes = LOOPS[options.row]
    roi, batch, repeats = ([32, 32, 32], 2, 2) if options.quick else (changes.get("roi_size", [32, 48, 32]), 2, 40)
    repeats = repeats if math.prod(roi) < 10**5 else 10
    with tempfile.TemporaryDirectory() as name:
        listed, run = write_phantom(output=Path(name) / "data", cases=10), Path(name) / "run"
        overrides = {
            "augment_on_device": True,
            **changes,
            "roi_size": roi,
            "batch_size": batch,
            "repeats": repeats,
            "precision": "bf16",
            "val_interval": 9,
        }
        busy = _Utilisation(options.device)
        train(
            network="SegResNet", json_list=listed, fold=0, output=run, epochs=2, overrides=overrides,
            device=options.device,
        )  # fmt: skip
        share = busy.stop()
        header, *rows = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
        last = [dict(zip(header, row, strict=True)) for row in rows]
        seconds = float(last[1]["seconds"]) / (int(last[1]["iteration"]) - int(last[0]["iteration"]))
        made = yaml.safe_load((run / "configs" / "train.yaml").read_text())["network_def"]
    candidate = Candidate("bare", "SegResNet", {key: value for key, value in made.items() if key != "_target_"})
    setup = Conditions(tuple(roi), 1, made["out_channels"], batch, options.device, torch.get_num_threads(), "bf16")
    bare = list(times([candidate], setup, "train", 6)[0][0])[0]
    figures = [f"{1000 * seconds:.1f} per iteration", f"{1000 * bare:.1f} bare", f"{seconds / bare:.2f} times"]
    return [f"{batch}×{'×'.join(map(str, roi))}", *figures, f"utilisation {share}"]


class _Utilisation:
    """The share of time that the GPU is at work, as nvidia-smi sees it twice a second.

    It is named by its UUID: nvidia-smi counts all GPUs of a machine, torch those that it may use.
    """

    def __init__(self, device: str) -> None:
        tool = shutil.which("nvidia-smi") if device.startswith("cuda") else None
        gpu = f"GPU-{torch.cuda.get_device_properties(torch.device(device)).uuid}" if tool else ""
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "500", "-i", gpu]
        self.process = subprocess.Popen([tool, *query], stdout=subprocess.PIPE, text=True) if tool else None

    def stop(self) -> str:
        if self.process is None:
            return "not known"
        self.process.terminate()
        values = [int(line) for line in self.process.communicate()[0].splitlines() if line.strip().isdigit()]
        late = values[len(values) // 2 :]  # the first half holds the start
        return f"{statistics.mean(late):.0f} %" if late else "not known"


if __name__ == "__main__":
    raise SystemExit(main())
