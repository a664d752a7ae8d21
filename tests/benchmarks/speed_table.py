"""Every row of the table of speed and memory, each printed when it is measured: medseg, what it is compared with, their
ratio, and the target.

    PYTHONPATH=.:tests/networks python tests/benchmarks/speed_table.py [--nnunet PYTHON] [--pairs 2] [--cases 5000]
        [--rows infer,start …] [--large]

CPU seconds (user and system, of all processes) of one thread, medians of alternating runs; memory is the peak of the
resident set. ``--nnunet`` is an interpreter that has nnunetv2 and MONAI. ``--large`` adds 105 classes at 512 x 512 x
800. About ten CPU minutes without it, five of which are 486 patches in two programs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from monai import metrics as monai_metrics
from monai.data import MetaTensor
from monai.transforms import Compose, Spacingd

from medseg.bundle.compose import resolve
from medseg.bundle.folder import Bundle
from medseg.data import make_dataset
from medseg.inferers import SlidingWindow
from medseg.labels import LabelSpace
from medseg.metrics.cases import case_scores
from medseg.networks.layers.large_kernel import DepthwiseConv
from medseg.storage import write_json
from medseg.transforms import ToSourceGridd, augmentation, pipeline, preprocessing
from medseg.transforms.spacing import OwnSpacingd
from medseg.workflows.benchmark_commands import Work, command_words, importing, network_alone, prepare, process_cost
from medseg.workflows.benchmark_result import ProcessCost

MIB = 2**20
HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
LAYER = {"kernel_size": 1, "conv_only": True}
USUAL, MANY = Work("SegResNet", (160, 160, 120), 4), Work("SegResNet", (300, 300, 200), 4)
Row = tuple[str, str, str, float | None, str]  # work, medseg, the other, ratio, target
Take = Callable[[], float]


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call in this process."""
    began = time.process_time()
    run()
    return time.process_time() - began


def pair(ours: Take, other: Take, turns: int) -> tuple[float, float, float]:
    """Medians of both, and of their ratio."""
    taken = [(ours(), other()) if turn % 2 == 0 else (other(), ours())[::-1] for turn in range(turns)]
    first, second = zip(*taken, strict=True)
    return statistics.median(first), statistics.median(second), statistics.median(a / b for a, b in taken)


def timed(name: str, ours: Take, other: Take, called: str, target: str, turns: int) -> Row:
    """A row of CPU seconds."""
    own, theirs, ratio = pair(ours, other, turns)
    return name, f"{own:.3g} s", f"{called} {theirs:.3g} s", ratio, target


def mib(cost: ProcessCost) -> float:
    return cost.peak_bytes / MIB


def start(args: argparse.Namespace) -> Iterator[Row]:
    """Imports."""
    ours = [process_cost(importing("medseg.workflows.prediction"), ENVIRONMENT) for _ in range(2 * args.pairs)]
    torch_alone = [process_cost(importing("torch"), ENVIRONMENT) for _ in range(2 * args.pairs)]
    own, theirs = (statistics.median(cost.cpu_seconds for cost in costs) for costs in (ours, torch_alone))
    said = f"{own:.2f} s, {statistics.median(map(mib, ours)):.0f} MiB"
    yield "imports of infer", said, f"torch {theirs:.2f} s", own / theirs, "2.0 × torch, 320 MiB"


def infer(args: argparse.Namespace) -> Iterator[Row]:
    """Whole commands against the network alone and the peers, with one network and one file."""
    for work, limit, turns in ((USUAL, 614, args.pairs), (MANY, None, 1)):
        with TemporaryDirectory() as folder:
            bundle = prepare(Path(folder), work)
            words = {"medseg": command_words("infer", bundle, 0)} | peers(bundle, args.nnunet, work)
            costs: dict[str, list[ProcessCost]] = {name: [] for name in words}
            for _ in range(turns):
                for name, line in words.items():
                    costs[name].append(process_cost(line, ENVIRONMENT))
            cpu = {name: statistics.median(c.cpu_seconds for c in found) for name, found in costs.items()}
            peak = {name: statistics.median(map(mib, found)) for name, found in costs.items()}
            name = f"infer {' × '.join(map(str, work.size))}"
            own = f"{cpu['medseg']:.1f} s, {peak['medseg']:.0f} MiB"
            if limit:
                patches, alone = network_alone("infer", bundle, work, 1)
                least = alone + process_cost(importing("torch"), ENVIRONMENT).cpu_seconds
                said = f"network {alone:.1f} s + torch"
                yield f"{name}, {patches} patches", own, said, cpu["medseg"] / least, f"1.03, {limit} MiB"
                base = mib(process_cost(importing("medseg.workflows.prediction"), ENVIRONMENT))
                volume = 4 * math.prod(work.size) / MIB
                above = peak["medseg"] - base
                yield f"{name}, above imports", f"{above:.0f} MiB", f"volume {volume:.0f} MiB", above / volume, "3"
            for other in list(words)[1:]:
                said = f"{other} {cpu[other]:.1f} s, {peak[other]:.0f} MiB"
                yield name, own, said, cpu["medseg"] / cpu[other], "0.7" if other == "nnU-Net" else ""


def peers(bundle: Path, nnunet: str | None, work: Work) -> dict[str, list[str]]:
    """Command lines of the same inference by others; of long ones one, nnU-Net's where it is there."""
    tree = resolve(Bundle(bundle), "infer").tree
    arguments = {key: value for key, value in tree["network_def"].items() if key != "_target_"}
    settings = {"arguments": arguments, "weights": str(bundle / "models" / "model.pt"), "roi_size": tree["roi_size"]}
    settings |= {"overlap": work.overlap, "normalization": tree["preprocess"]["normalization"][0]}
    given = bundle.parent / "settings.json"
    write_json(given, settings)
    files = [str(given), str(bundle.parent / "image_1.nii.gz"), str(bundle.parent / "theirs")]
    found = {"MONAI": [sys.executable, str(HERE / "peer_infer.py"), "monai", *files]}
    found |= {"nnU-Net": [nnunet, str(HERE / "peer_infer.py"), "nnunet", *files]} if nnunet else {}
    return dict([list(found.items())[-1]]) if work is MANY else found


def classes(args: argparse.Namespace) -> Iterator[Row]:
    """105 classes, one layer."""
    yield many_classes((256, 256, 256), "monai.networks.blocks.Convolution", LAYER, "0.7 GiB")


def large(args: argparse.Namespace) -> Iterator[Row]:
    """105 classes of a large volume, 32 features; half an hour, so the last of the table."""
    if args.large:
        features = {"features": [4, 4, 4, 4, 4, 32]}
        yield many_classes((512, 512, 800), "monai.networks.nets.BasicUNet", features, "4.0 GiB")


def many_classes(size: tuple[int, ...], network: str, arguments: Mapping[str, Any], limit: str) -> Row:
    with TemporaryDirectory() as folder:
        bundle = prepare(Path(folder), Work(network, size, 105, arguments))
        cost = process_cost(command_words("infer", bundle, 0), ENVIRONMENT)
    logits = 4 * 105 * math.prod(size) / 2**30
    name = f"infer, 105 classes, {' × '.join(map(str, size))}"
    said, peak = f"{cost.cpu_seconds:.1f} s, {mib(cost):.0f} MiB", cost.peak_bytes / 2**30
    return name, said, f"logits {logits:.1f} GiB", peak / logits, limit


def empty(args: argparse.Namespace) -> Iterator[Row]:
    """Patches of a volume that is 94 % empty."""
    image = torch.full((1, 1, 160, 160, 160), -1.0)
    image[:, :, :63, :63, :63] = torch.randn(1, 1, 63, 63, 63)
    window, layer = SlidingWindow((64, 64, 64), 0.7, sw_batch_size=1), torch.nn.Conv3d(1, 4, 3, padding=1)
    with torch.no_grad():
        window(image, layer.eval())
    patches = len(window.places((160,) * 3, (64,) * 3))
    yield "160³, 94 % empty, patches", str(window.windows), str(patches), window.windows / patches, "below 1"


def grid(args: argparse.Namespace) -> Iterator[Row]:
    """To the model's grid and back."""
    affine = torch.diag(torch.tensor([0.8, 0.8, 0.8, 1.0], dtype=torch.float64))
    image = {"image": MetaTensor(torch.randn(1, 147, 147, 147), affine=affine)}
    ours, theirs = (
        kind("image", pixdim=(1.0, 1.0, 1.0), mode="bilinear", padding_mode="border")
        for kind in (OwnSpacingd, Spacingd)
    )
    runs = (lambda: seconds(lambda: ours(image)), lambda: seconds(lambda: theirs(image)))
    yield timed("resampling 3.2 M voxels", *runs, "MONAI", "", 2 * args.pairs)
    prepared = ours(image)["image"]
    labels = {"background": 0} | {f"label {n}": n for n in range(1, 15)}
    back = ToSourceGridd("pred", Compose([ours]), LabelSpace.from_table({"labels": labels}))
    logits = torch.randn(15, *prepared.shape[1:])
    runs = (
        lambda: seconds(lambda: back({"image": prepared, "pred": logits})),
        lambda: seconds(lambda: F.interpolate(logits[None], (147,) * 3, mode="trilinear")),
    )
    yield timed("back to the source grid, 15 classes", *runs, "torch trilinear alone", "0.4 s", 2 * args.pairs)


def scores(args: argparse.Namespace) -> Iterator[Row]:
    """Dice, HD95 and surface Dice of 15 labels."""
    places = np.stack(np.meshgrid(*[np.arange(256)] * 3, indexing="ij"))
    maps = np.zeros((2, 256, 256, 256), np.int16)
    draw = np.random.default_rng(0)
    for label in range(1, 16):
        centre, radius = draw.uniform(50, 206, 3), draw.uniform(14, 42)
        for number in range(2):
            distance = (places - (centre + number * 1.5)[:, None, None, None]) ** 2
            maps[number][distance.sum(0) < radius**2] = label
    space = LabelSpace.from_table({"labels": {"background": 0} | {f"label {n}": n for n in range(1, 16)}})
    names = ["dice", "hd95", "surface_dice"]

    def theirs() -> None:
        hot = (F.one_hot(torch.from_numpy(one).long(), 16).movedim(-1, 0)[None].bool() for one in maps)
        first, second = hot
        monai_metrics.compute_dice(first, second, include_background=False)
        monai_metrics.compute_hausdorff_distance(first, second, percentile=95)
        monai_metrics.compute_surface_dice(first, second, [1.0] * 15)

    runs = (
        lambda: seconds(lambda: case_scores(*maps, space, (1.0, 1.0, 1.0), metrics=names)),
        lambda: seconds(theirs),
    )
    yield timed("Dice, HD95, surface Dice, 256³, 15 labels", *runs, "MONAI", "0.9 s", args.pairs)


NETWORKS = (
    ("hnoseg_xs", ["--size", "64", "96", "96"], "0.20"),
    ("hnoseg_xs", ["--size", "155", "240", "240", "--pairs", "1"], "0.10"),
    ("fnoseg", [], "0.30"),
    ("hartley_mha", [], "0.35"),
    ("ssh_unet", ["--pairs", "1"], "0.487 fast, 0.333 of the memory lean"),
    ("qtseg", [], "0.45"),
)


def networks(args: argparse.Namespace) -> Iterator[Row]:
    """Networks against the original's order of operations, and the large kernel against its two Fourier transforms."""
    for name, options, target in NETWORKS:
        words = [sys.executable, str(HERE / "originals.py"), name, "--pairs", str(args.pairs), *options]
        said = subprocess.run(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = {line.split()[0]: line.split() for line in said.splitlines() if " ratio " in line}
        for variant, cells in found.items():
            if variant != "original":
                size = " × ".join(options[1:4]) if "--size" in options else ""
                other = found["original"]
                memory = f"{cells[6]} MiB of {other[6]}"
                yield f"{name} {variant} {size}", f"{cells[1]} s, {memory}", f"{other[1]} s", float(cells[4]), target
    layer, image = DepthwiseConv(3, 48, 21), torch.randn(1, 48, 48, 48, 48)
    with torch.no_grad():
        wide = F.pad(image, [12] * 6)  # 72: the smallest even product of small factors from 48 + 21 - 1 on

        def there_and_back() -> None:
            torch.fft.irfftn(torch.fft.rfftn(wide, dim=(2, 3, 4)), dim=(2, 3, 4))

        runs = (lambda: seconds(lambda: layer(image)), lambda: seconds(there_and_back))
        yield timed(
            "21³ depthwise layer, 48 × 48³", *runs, "FFT there and back", "27 ms, 3 × its bound", 5 * args.pairs
        )


def cases(args: argparse.Namespace) -> Iterator[Row]:
    """Start of a training, check and comparison of many cases."""
    with TemporaryDirectory() as name:
        folder, draw = Path(name), np.random.default_rng(0)
        entries = []
        for number in range(args.cases):
            label = np.zeros((16, 16, 16), np.uint8)
            label[4:10, 4:10, 4 : 6 + number % 8] = 1
            for kind, array in (
                ("image", (100 * label + draw.integers(0, 9, label.shape)).astype(np.int16)),
                ("label", label),
            ):
                nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{kind}_{number}.nii")
            entries.append({"image": f"image_{number}.nii", "label": f"label_{number}.nii", "fold": min(number, 1)})
        table = {"name": "many", "modality": {"0": "MR"}, "labels": {"background": 0, "one": 1}, "training": entries}
        (folder / "list.json").write_text(json.dumps(table))
        for run in ("a", "b"):
            rows = {
                f"image_{n}": {"one": {"dice": float(d), "volume_ml": 1.0, "reference_ml": 1.0}}
                for n, d in enumerate(draw.uniform(0.5, 0.9, args.cases))
            }
            summary = {"one": {"dice": {"mean": 0.7, "cases": args.cases, "undefined": 0}}}
            scored = {"mean_dice": 0.7, "labels": summary, "cases": rows, "section": "test", "fold": 0}
            (folder / run).mkdir()
            (folder / run / "metrics.json").write_text(json.dumps(scored))
        medseg = [sys.executable, "-m", "medseg.cli"]
        listed = ["--json_list", str(folder / "list.json")]
        training = ["--network", "BasicUNet", "--max_minutes", "0.1", "--fold", "0", "--device", "cpu"]
        training += ["--set", "roi_size=[32,32,32]", "--set", "cache=plain"]
        commands = {
            "check": ["check", *listed],
            "train, 0.1 minutes": ["train", *listed, *training, "--output", str(folder / "run")],
            "compare": [
                "compare",
                *(w for run in "ab" for w in ("--run", str(folder / run))),
                "--output",
                str(folder / "c"),
            ],
        }
        for said, words in commands.items():
            cost = process_cost([*medseg, *words], ENVIRONMENT)
            each = f"{1000 * cost.cpu_seconds / args.cases:.2f} ms a case"
            yield f"{said}, {args.cases} cases", f"{cost.cpu_seconds:.1f} s, {mib(cost):.0f} MiB", each, None, ""


CACHES = (  # what a row says, kind, fold
    ("of all cases in memory", "cache", 0),
    ("none", "plain", 0),
    ("smart, half of the cases at a time", "smart", 0),
    ("on disk", "persistent", 0),
    ("on disk, shared: 6 of 9 cases are of an earlier fold", "persistent", 1),
    ("on disk, all cases of an earlier run", "persistent", 1),
)


def caches(args: argparse.Namespace) -> Iterator[Row]:
    """Kinds of cache: 9 cases of 128³ in start and two epochs, and memory above the imports."""
    with TemporaryDirectory() as name:
        folder, draw = Path(name), np.random.default_rng(0)
        for number in range(12):
            label = np.zeros((128,) * 3, np.uint8)
            label[30:90, 30:90, 30 : 60 + number] = 1
            image = (100 * label + draw.integers(0, 9, label.shape)).astype(np.int16)
            for kind, array in (("image", image), ("label", label)):
                nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{kind}_{number}.nii.gz")
        whole = 0.0
        for said, kind, fold in CACHES:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                taken, above = pool.submit(epochs, folder, kind, fold).result()
            whole = whole or sum(taken)
            steps = " + ".join(f"{s:.2f}" for s in taken)
            yield f"cache {said}", f"{steps} s, {above:.0f} MiB", f"in memory {whole:.2f} s", sum(taken) / whole, ""


def epochs(folder: Path, kind: str, fold: int) -> tuple[list[float], float]:
    """CPU seconds of start, first and second epoch over the training cases of a fold, and MiB above the start."""
    torch.set_num_threads(1)
    space = LabelSpace.from_table({"labels": {"background": 0, "one": 1}})
    roi, scheme = [64, 64, 64], [{"kind": "case"}]
    transform = pipeline(
        partial(preprocessing, normalization=scheme, roi_size=roi, spacing=[1.1, 1.1, 1.1]),
        ["image", "label"],
        label_space=space,
        augment=partial(augmentation, roi, label_space=space, intensity=[]),
    )
    data = [
        {"case_id": str(n), "image": str(folder / f"image_{n}.nii.gz"), "label": str(folder / f"label_{n}.nii.gz")}
        for n in range(12)
        if n % 4 != fold
    ]
    places, rate, before = str(folder / "cache"), 0.5 if kind == "smart" else 1.0, resident("VmRSS")
    times = [time.process_time()]
    dataset = make_dataset(data, transform, kind=kind, cache_dir=places, cache_rate=rate, num_workers=1)
    rolling = dataset.dataset if kind == "smart" else None
    times.append(time.process_time())
    for epoch in range(2):
        if rolling:
            rolling.start() if epoch == 0 else rolling.update_cache()
        for number in range(len(dataset)):
            dataset[number]
        times.append(time.process_time())
    if rolling:
        rolling.shutdown()
    return np.diff(times).tolist(), resident("VmHWM") - before


def resident(kind: str) -> float:
    """MiB of this process, now (VmRSS) or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    part.__name__: part for part in (start, grid, empty, scores, classes, caches, cases, networks, infer, large)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet", metavar="PYTHON", help="interpreter that has nnunetv2 and MONAI")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--rows", default=",".join(PARTS), help="parts of the table: %(default)s")
    parser.add_argument("--large", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| work | medseg | other | ratio | target |\n|---|---|---|--:|---|", flush=True)
    for part in args.rows.split(","):
        for work, ours, other, ratio, target in PARTS[part](args):
            print(f"| {work} | {ours} | {other} | {'' if ratio is None else f'{ratio:.3g}'} | {target} |", flush=True)


if __name__ == "__main__":
    main()
