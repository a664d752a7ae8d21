"""Start a network from the weights of another training: what fits is loaded, what is named is re-initialised, and
nothing else is tolerated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import nn

from medseg.errors import ModelError, few
from medseg.weights.files import check_match, read_state_dict

__all__ = ["TransferReport", "transfer_state", "transfer_weights"]


@dataclass(frozen=True)
class TransferReport:
    """Names of the network's parameters that were loaded or keep fresh values, and of the file's that were not used."""

    loaded: tuple[str, ...]
    reinitialized: tuple[str, ...]
    left: tuple[str, ...]

    def lines(self) -> list[str]:
        """One line per group: its size and its names, shortened."""
        groups = (("loaded", self.loaded), ("re-initialised", self.reinitialized), ("left in the file", self.left))
        return [f"{len(names)} tensors {what}{f' ({few(names)})' if names else ''}" for what, names in groups]


def transfer_weights(
    network: nn.Module, path: str | Path, *, reinitialize: Sequence[str] = (), partial: bool = False
) -> TransferReport:
    """Load a file of weights into a network except for the parameters that are re-initialised.

    Args:
        network: changed in place.
        path: a state dict, as ``read_state_dict`` takes it.
        reinitialize: patterns of parameter names (``fnmatch``: ``*`` is any text) that keep their fresh values.
        partial: also accept parameters that only one side has, or that differ in shape.

    Raises:
        ModelError: as ``transfer_state``; or the file cannot be used.
    """
    return transfer_state(network, read_state_dict(path), str(path), reinitialize=reinitialize, partial=partial)


def transfer_state(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    source: str,
    *,
    reinitialize: Sequence[str] = (),
    partial: bool = False,
) -> TransferReport:
    """``transfer_weights`` of a state dict; ``source`` begins the sentences of its errors.

    Raises:
        ModelError: a pattern matches nothing, nothing is left to load, or, without ``partial``, the rest does not fit.
    """
    own = network.state_dict()
    fresh = {name for name in own if _matches(name, reinitialize)}
    for pattern in reinitialize:
        if not any(fnmatchcase(name, pattern) for name in (*own, *state)):
            raise ModelError(
                f"'{pattern}' matches no tensor of {type(network).__name__}; its first is {next(iter(own))}."
            )
    wanted = {name: value for name, value in state.items() if not _matches(name, reinitialize)}
    loaded = {k: v for k, v in wanted.items() if k in own and own[k].shape == v.shape}
    if not loaded:
        check_match(network, state, source, strict=False)
        raise ModelError(f"Nothing of {source} is left to load into {type(network).__name__}; re-initialise less.")
    missing = [name for name in own if name not in loaded and name not in fresh]
    unexpected = [name for name in wanted if name not in own]
    if (missing or unexpected) and not partial:
        raise ModelError(
            f"{source} fits {type(network).__name__} only in part: {len(missing)} parameters are missing or of another "
            f"shape ({few(missing)}), {len(unexpected)} unexpected ({few(unexpected)}); name what to "
            "re-initialise (--reinitialize PATTERN), or take what fits (--partial)."
        )
    network.load_state_dict(loaded, strict=False)
    return TransferReport(
        tuple(loaded), tuple(name for name in own if name not in loaded), tuple(k for k in state if k not in loaded)
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
