"""The weights of an encoder alone, such as pretrained ones, in the place of a network's ``encoder``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from medseg.errors import ModelError, few

__all__ = ["encoder_state"]

_PART = "encoder"


def encoder_state(
    network: nn.Module, state: Mapping[str, Tensor], source: str, reinitialize: Sequence[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict with the names of the whole network, and the names of all its parameters that start from scratch.

    Args:
        network: has a part named ``encoder``.
        state: state dict of such a part, or of a network with one, whose rest is not used.
        source: begins the sentences of errors.
        reinitialize: patterns of names of the network's parameters that need not fit.

    Raises:
        ModelError: the network has no such part, or the weights do not fit it.
    """
    name = type(network).__name__
    encoder = getattr(network, _PART, None)
    if not isinstance(encoder, nn.Module):
        raise ModelError(
            f"{name} has no part named '{_PART}', which --encoder_weights fill; expected a network such as qtseg or "
            "resenc_unet. Name one, or use --transfer with --partial."
        )
    inside = {k.removeprefix(f"{_PART}."): v for k, v in state.items() if k.startswith(f"{_PART}.")} or dict(state)
    known = encoder.state_dict()
    fresh = {k for k in known if any(fnmatchcase(f"{_PART}.{k}", pattern) for pattern in reinitialize)}
    misfits = [k for k, v in known.items() if k not in fresh and (k not in inside or inside[k].shape != v.shape)]
    if misfits:
        raise ModelError(
            f"{source} does not fit the encoder of {name}: {len(misfits)} of its {len(known)} parameters are missing "
            f"or of another shape ({few(misfits)}); the file begins with {next(iter(inside), 'nothing')}. Convert an "
            "original's file with `medseg import-weights`, give the network the file's width and channels, or name "
            "what to start from scratch with --reinitialize."
        )
    loaded = {f"{_PART}.{k}": inside[k] for k in known if k not in fresh}
    return loaded, [k for k in network.state_dict() if k not in loaded]
