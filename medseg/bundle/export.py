"""Export a network: TorchScript, ``torch.export`` and ONNX, each read back from its file and compared with the network.

A recording for any size is tried first: the sizes given tell which axes vary, and by what multiples; it counts when it
agrees with the network at every one of them. A network that cannot be recorded so (its forward turns sizes into
numbers, or it takes one patch only) is recorded for the first size, and the result says so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from torch import Tensor, nn
from torch.export import Dim

from medseg.bundle.onnx_norms import write_out_instance_norms
from medseg.errors import ConfigError, ModelError, nearest
from medseg.faults import reason_of

__all__ = ["FORMATS", "TOLERANCE", "Exported", "Parity", "chosen_formats", "export_network", "other_size"]

TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit where that is above 1
_OPSET = 20  # the first with DFT for every axis and 3D grid sampling
_SUFFIX = {"torchscript": ".ts", "torch_export": ".pt2", "onnx": ".onnx"}
FORMATS = tuple(_SUFFIX)

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Parity:
    """How far a recording is from the network at one size.

    Attributes:
        size: spatial size.
        difference: largest absolute difference of the logits.
        largest_logit: largest absolute logit of the network.
    """

    size: Sequence[int]
    difference: float
    largest_logit: float


@dataclass(frozen=True)
class Exported:
    """One exported file.

    Attributes:
        file: its name.
        method: ``script``, ``trace``, ``export`` or ``dynamo``.
        multiples_of: per axis, what the spatial sizes that it takes are multiples of; ``None`` where it takes the
            first size of ``parity`` only.
        parity: its difference to the network, per size.
        note: why it takes one size only; else empty.
    """

    file: str
    method: str
    multiples_of: list[int] | None
    parity: Sequence[Parity]
    note: str


def chosen_formats(name: str) -> tuple[str, ...]:
    """``all`` or one format -> the formats.

    Raises:
        ConfigError: unknown, or ONNX without its packages.
    """
    if name != "all" and name not in FORMATS:
        raise ConfigError(f"Format '{name}' is unknown.{nearest(name, FORMATS)} Known: {', '.join(FORMATS)}, all.")
    formats = FORMATS if name == "all" else (name,)
    missing = [pkg for pkg in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(pkg) is None]
    if "onnx" in formats and missing:
        raise ConfigError(
            f"ONNX needs the extra `export` ({', '.join(missing)} not installed): pip install 'medseg[export]'."
        )
    return formats


def other_size(roi_size: Sequence[int]) -> tuple[int, ...]:
    """A second size to compare at: other in every axis by multiples of 32, which most networks divide by, and no cube.

    ``(96, 96, 96) -> (128, 64, 64)``; ``(32, 40, 32) -> (96, 72, 64)``.
    """
    size = [n - 32 if n >= 64 else n + 32 for n in roi_size]
    size[0] = roi_size[0] + (32 if roi_size[0] >= 64 else 64)
    return tuple(size)


def export_network(
    network: nn.Module,
    in_channels: int,
    sizes: Sequence[Sequence[int]],
    directory: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    metadata: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Exported]:
    """Write ``model.ts``, ``model.pt2`` and ``model.onnx``; batch size 1, float32, CPU.

    Args:
        network: takes ``(1, in_channels, *size)``; put into evaluation mode.
        sizes: the first is the patch; the network may refuse the others.
        directory: made where it is not there.
        formats: some of ``FORMATS``.
        metadata, config: a bundle's metadata and inference config; the TorchScript file carries them, as MONAI Deploy
            reads them.

    Returns:
        Format -> what was written.

    Raises:
        ModelError: the network refuses the first size, or cannot be recorded even for that one.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    network = network.cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(1, in_channels, *size, generator=generator) for size in sizes]
    with torch.no_grad(), _quiet():
        recorder = _Recorder(network, _taken(network, images), {"metadata": metadata, "config": config})
        return {fmt: recorder.export(fmt, folder / f"model{_SUFFIX[fmt]}") for fmt in formats}


def _taken(network: nn.Module, images: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The images that the network takes, with its logits."""
    pairs = []
    for image in images:
        try:
            pairs.append((image, network(image)))
        except Exception as error:  # networks of one patch refuse the others in their own ways
            if not pairs:
                raise ModelError(
                    f"{type(network).__name__} does not take {tuple(image.shape[1:])} ({reason_of(error)}); "
                    "name a valid patch with --sizes."
                ) from error
    return pairs


class _Recorder:
    """Records one network in every format; the program of ``torch.export`` is made once for two of them."""

    def __init__(self, network: nn.Module, expected: Sequence[tuple[Tensor, Tensor]], extra: Mapping[str, Any]) -> None:
        self.network = network
        self.expected = expected
        self.extra = extra
        sizes = list(zip(*(image.shape[2:] for image, _ in expected), strict=True))
        # An axis that is the same in all sizes stays as it is.
        self.multiples = [math.gcd(*axis) if len(set(axis)) > 1 else axis[0] for axis in sizes]
        self.largest = [max(axis) for axis in sizes]
        self._programs: dict[bool, torch.export.ExportedProgram | Exception] = {}

    def export(self, fmt: str, path: Path) -> Exported:
        """Try every way to record the format, any size first; the first that agrees with the network is kept."""
        problem = "" if len(self.expected) > 1 else "the network takes this size only"
        last: Exception = ModelError(problem)
        for method, any_size in _WAYS[fmt]:
            if any_size and len(self.expected) < 2:
                continue
            try:
                run = getattr(self, f"_{fmt}")(method, any_size, path)
                parity = [_difference(run, *pair) for pair in (self.expected if any_size else self.expected[:1])]
            except Exception as error:  # exporters and runtimes fail in any way; the next one may do
                last = error
                problem = problem or f"{method} for any size: {reason_of(error)}"
            else:
                if any_size:
                    return Exported(path.name, method, self.multiples, parity, "")
                return Exported(path.name, method, None, parity, problem)
        path.unlink(missing_ok=True)
        raise ModelError(
            f"{type(self.network).__name__} cannot be exported to {fmt} ({reason_of(last)}); choose another --format."
        ) from last

    def _torchscript(self, method: str, any_size: bool, path: Path) -> Run:
        image = self.expected[-1 if any_size else 0][0]
        script = method == "script"
        recorded = torch.jit.script(self.network) if script else torch.jit.trace(self.network, image, check_trace=False)
        files = {"inference.json": json.dumps(self.extra["config"]).encode()} if self.extra["config"] else {}
        save_net_with_metadata(recorded, str(path), meta_values=self.extra["metadata"], more_extra_files=files)
        run: Run = torch.jit.load(str(path))
        return run

    def _torch_export(self, method: str, any_size: bool, path: Path) -> Run:
        torch.export.save(self._program(any_size), path)
        return torch.export.load(path).module()

    def _onnx(self, method: str, any_size: bool, path: Path) -> Run:
        import onnxruntime

        names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"]}
        program = torch.onnx.export(self._program(any_size), dynamo=True, opset_version=_OPSET, verbose=False, **names)
        assert program is not None  # with dynamo=True
        write_out_instance_norms(program.model)
        program.save(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0])

    def _program(self, any_size: bool) -> torch.export.ExportedProgram:
        if any_size not in self._programs:
            try:
                self._programs[any_size] = self._recorded(any_size)
            except Exception as error:  # whatever it is, it is the answer for both formats
                self._programs[any_size] = error
        program = self._programs[any_size]
        if isinstance(program, Exception):
            raise program
        return program

    def _recorded(self, any_size: bool) -> torch.export.ExportedProgram:
        image = self.expected[0][0]
        if not any_size:
            return torch.export.export(self.network, (image,))
        # The example is large in every axis: torch takes a size of one multiple for a constant.
        example = image.new_zeros(*image.shape[:2], *self.largest)
        shapes = {
            axis + 2: multiple * Dim(f"n{axis}", min=1)
            for axis, (multiple, n) in enumerate(zip(self.multiples, self.largest, strict=True))
            if multiple < n
        }
        return torch.export.export(self.network, (example,), dynamic_shapes=(shapes,))


# (method, for any size) in the order they are tried.
_WAYS: dict[str, tuple[tuple[str, bool], ...]] = {
    "torchscript": (("script", True), ("trace", True), ("script", False), ("trace", False)),
    "torch_export": (("export", True), ("export", False)),
    "onnx": (("dynamo", True), ("dynamo", False)),
}


def _difference(run: Run, image: Tensor, logits: Tensor) -> Parity:
    """How far a recording is from the network on one image.

    Raises:
        ModelError: farther than ``TOLERANCE``, or of another shape.
    """
    result = run(image)
    if result.shape != logits.shape:
        raise ModelError(f"it returns shape {tuple(result.shape)} instead of {tuple(logits.shape)}")
    difference, largest = float((result - logits).abs().max()), float(logits.abs().max())
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ModelError(f"it differs by {difference:.2g} from the network at {tuple(image.shape[2:])}")
    return Parity(list(image.shape[2:]), difference, largest)


# ---------------------------------------------------------------------- words


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own warnings and progress: what matters is compared afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._export", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
