"""Safe files of weights: tensors and plain containers only, written whole or not at all."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from medseg.errors import ModelError, ResourceError, few
from medseg.storage import whole_file

__all__ = ["check_match", "load_file", "load_weights", "read_state_dict", "refuse_non_finite", "save_file"]

# Training states of other programs often hold a loss as a NumPy number; making one from bytes runs no code.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in "fdil")]
_NUMBERS += [(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]

_STATE_KEYS = (
    *("network", "ema_model_state_dict", "model", "state_dict", "state_dict_model", "model_state_dict"),
    "network_weights",
)


def save_file(content: Any, path: str | Path) -> None:
    """Write with ``torch.save`` to a temporary name, flush, then rename; a crash leaves the old file whole.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # torch's own writer, which hides the reason
        raise ResourceError(
            f"{path} could not be written ({error}); the old file is kept. Free disk space or check the folder."
        ) from error


def load_file(path: str | Path, *, again: bool = False) -> Any:
    """Read with ``weights_only=True`` onto the CPU.

    Args:
        path: the file.
        again: it was read and checked before, so that it may be mapped into memory as it is.

    Raises:
        ModelError: missing, damaged, or a file that needs unpickling of code.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"Checkpoint {path} not found; train first, or name an existing file.")
    try:
        with torch.serialization.safe_globals(_NUMBERS), path.open("rb") as file:
            if again and zipfile.is_zipfile(file):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            _check_sums(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise ResourceError(f"No read permission for {path}; change the file's permissions.") from error
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        if match is None:
            raise ModelError(f"{path} is damaged (no valid checkpoint data); copy or train it again.") from error
        raise ModelError(
            f"{path} refused: it needs unpickling of {match.group(1)}, which can run code; save it as a plain "
            f"state dict of tensors."
        ) from error
    except Exception as error:  # damaged bytes make torch raise anything, MemoryError too
        reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} is damaged ({reason}); copy or train it again.") from error


def _check_sums(file: BinaryIO) -> None:
    """Hold a file of ``torch.save`` against its checksums, which ``torch.load`` does not read.

    Raises:
        zipfile.BadZipFile: a byte differs.
    """
    if not zipfile.is_zipfile(file):
        return  # torch's earlier format has none
    with zipfile.ZipFile(file) as archive:
        if any(member.CRC for member in archive.infolist()) and (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"'{damaged}' differs from its checksum")


def load_weights(network: nn.Module, path: str | Path, *, again: bool = False) -> None:
    """Load a state dict (plain, or under ``network``, ``model`` or ``state_dict``) into a network.

    Of a training state with averaged weights, the average is taken: it is what was validated. ``again``: as for
    ``load_file``.

    Raises:
        ModelError: the file is missing or damaged, or its keys or shapes do not fit; with ``strict=False`` a partial
        match is accepted.
    """
    state = read_state_dict(path, again=again)
    check_match(network, state, str(path))
    network.load_state_dict(state)


def read_state_dict(path: str | Path, *, again: bool = False) -> dict[str, torch.Tensor]:
    """The state dict of a file: plain, or under one of the names that training programs use; averaged weights first.

    Raises:
        ModelError: the file is missing or damaged, holds none, or a tensor of it holds NaN or infinity.
    """
    content = load_file(path, again=again)
    state = content
    for key in _STATE_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            state = content[key]
            break
    if isinstance(content, dict) and isinstance(content.get("average"), dict):
        prefix = "module."  # of torch's AveragedModel, which also counts its updates
        state = {key[len(prefix) :]: value for key, value in content["average"].items() if key.startswith(prefix)}
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(
            f"{path} holds no state dict; expected tensors by name, plain or under {', '.join(_STATE_KEYS)}."
        )
    if not again:
        refuse_non_finite(state, str(path))
    return state


def refuse_non_finite(state: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuse weights with which every prediction would be background; ``source`` begins the message.

    Raises:
        ModelError: a tensor holds NaN or infinity.
    """
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if not broken:
        return
    value = state[broken[0]]
    others = f" (and so do {len(broken) - 1} other tensors)" if len(broken) > 1 else ""
    raise ModelError(
        f"{source}: tensor '{broken[0]}' holds {int(value.isnan().sum())} NaN and {int(value.isinf().sum())} infinite "
        f"of {value.numel()} values{others}; expected finite weights. The training diverged or the file is damaged: "
        "use another checkpoint, or train again with a smaller learning_rate."
    )


def check_match(network: nn.Module, state: Mapping[str, torch.Tensor], source: str, *, strict: bool = True) -> None:
    """Refuse a state dict of other keys or shapes; ``source`` begins the message.

    Raises:
        ModelError: nothing fits, or not all with ``strict``.
    """
    own = network.state_dict()
    kind = type(network).__name__
    shared = [key for key in own if key in state]
    if not shared:
        example = next(iter(state), "none")
        raise ModelError(
            f"{source} has keys like '{example}'; network {kind} matches 0 of {len(own)}. It is of another network: "
            "name the network it was trained with."
        )
    different = [key for key in shared if own[key].shape != state[key].shape]
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    if not strict or not (different or missing or unexpected):
        return
    if different and not missing and not unexpected and all(own[k].shape[1:] == state[k].shape[1:] for k in different):
        key = different[-1]
        raise ModelError(
            f"{source} has a head of {state[key].shape[0]} channels ('{key}'), the network {own[key].shape[0]}; "
            "use weights of the same label space, or train with --transfer to give them a new head."
        )
    parts = [
        f"{len(keys)} {what} ({few(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", different))
        if keys
    ]
    raise ModelError(f"{source} fits {kind} only in part: {'; '.join(parts)}; use the weights of exactly this network.")
