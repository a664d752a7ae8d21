"""``medseg export``."""

from __future__ import annotations

import argparse

HELP = "Export a trained network (TorchScript, torch.export, ONNX) with all that is needed to use it without medseg."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="RUN_OR_BUNDLE", help="folder of a run, or of a bundle with models/model.pt")
    parser.add_argument(
        "--format",
        default="all",
        metavar="F",
        help="torchscript, torch_export, onnx (needs the extra `export`) or all (default all)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=size_argument,
        metavar="A,B,C",
        help="sizes to compare at besides the window, such as 128,96,64 (default: one that differs in every axis)",
    )
    parser.add_argument("--checkpoint", default="best", metavar="C", help="best, last or a file (default best)")
    parser.add_argument(
        "--overlay", action="append", default=[], metavar="NAME", help="a further config of the bundle, such as gsm"
    )
    parser.add_argument("--dataset", metavar="NAME", help="of a run on several data sets: whose tasks to segment")
    parser.add_argument("--modality", metavar="M", help="of the images, with --dataset, such as ct (default unknown)")


def size_argument(text: str) -> tuple[int, ...]:
    """``"96,96,64"`` -> ``(96, 96, 64)``."""
    return tuple(int(n) for n in text.split(","))


def run(args: argparse.Namespace) -> int:
    from medseg.workflows.export import export

    content = export(
        args.bundle,
        args.output,
        format=args.format,
        sizes=args.sizes,
        checkpoint=args.checkpoint,
        overlays=args.overlay,
        dataset=args.dataset,
        modality=args.modality,
    )
    for name, made in content["exports"].items():
        taken = made["multiples_of"]
        print(f"{name}: {made['file']} by {made['method']}, " + (f"multiples of {taken}" if taken else "one size only"))
        for row in made["parity"]:
            print(f"  {row['size']}: differs by {row['difference']:.1e}, largest logit {row['largest_logit']:.3g}")
        if made["note"]:
            print(f"  {made['note']}")
    print(f"exported: {args.output}")
    return 0
