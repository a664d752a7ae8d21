"""The registry of networks: a MONAI ``ComponentStore`` under snake-case names.

Add a network by writing one module in this folder::

    @register("my_net", title="MyNet", spatial_dims=(2, 3), channels=(1, 14), parameters=123, setting="BTCV",
              paper="journal or arXiv number")
    class MyNet(nn.Module):
        def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, width: int = 32) -> None: ...

``forward`` takes ``(B, in_channels, *spatial)`` and returns logits ``(B, out_channels, *spatial)`` at the input's
size; with deep supervision, training mode returns the list that ``monai.losses.DeepSupervisionLoss`` takes.
``torch.jit.script`` compiles it, or ``unscripted="why not"`` stands beside the other facts; so do ``heads=True`` where
``deep_supervision`` trains heads, and how it is trained otherwise than a recipe says (``training_facts``). A class
method ``planned_arguments(plan)`` may turn a plan into constructor arguments. A class attribute ``whole_volume = True``
says that the network needs whole images: the plan makes them coarse enough for the memory and uses no patches; one
``reparameterization = "effective"`` that its large kernels are trained so (``medseg.optimizers.frequency``).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from monai.utils import ComponentStore
from torch import nn

from medseg.errors import ConfigError, nearest
from medseg.networks.catalog import catalog

__all__ = ["NETWORKS", "PlannedFor", "create_network", "network_class", "network_target", "register"]

NETWORKS = ComponentStore("medseg networks", "Segmentation architectures of medseg, by name.")


class PlannedFor(Protocol):
    """What a network may ask of a plan to choose its constructor arguments (``planned_arguments``)."""

    spatial_dims: int
    spacing: tuple[float, ...] | None
    roi_size: tuple[int, ...]
    light: bool


_Network = TypeVar("_Network", bound=type[nn.Module])


def register(
    name: str,
    *,
    title: str,
    spatial_dims: tuple[int, ...],
    channels: tuple[int, int],
    parameters: int,
    setting: str,
    paper: str,
    unscripted: str = "",
    heads: bool = False,
    rate: float = 1.0,
    light_rate: float = 1.0,
    changes: Mapping[str, Any] | None = None,
    evidence: str = "",
    bf16_time: float | None = None,
) -> Callable[[_Network], _Network]:
    """Class decorator: put a network into ``NETWORKS``; the arguments must be literals (see ``catalog``).

    Raises:
        ValueError: the name is taken.
    """

    def decorate(cls: _Network) -> _Network:
        if name in NETWORKS:
            raise ValueError(f"A network named '{name}' is registered already: {NETWORKS[name].__module__}.")
        NETWORKS.add(name, f"{title}: {paper}", cls)
        return cls

    return decorate


def network_target(name: str) -> str:
    """The dotted path of a registered name, of a class in ``monai.networks.nets``, or of the user's own class.

    Raises:
        ConfigError: nothing of that name exists.
    """
    if name in catalog():
        return f"medseg.networks.{catalog()[name].class_name}"
    by_class = {facts.class_name: facts for facts in catalog().values()}
    if name in by_class:
        return f"medseg.networks.{name}"
    if "." in name.strip("."):
        _import_class(name)
        return name
    import monai.networks.nets as monai_nets

    known = getattr(monai_nets, name, None)
    if inspect.isclass(known) and issubclass(known, nn.Module):
        return f"monai.networks.nets.{name}"
    monai_names = [n for n, c in vars(monai_nets).items() if inspect.isclass(c) and issubclass(c, nn.Module)]
    hint = nearest(name, [*catalog(), *monai_names])
    raise ConfigError(
        f"No network '{name}'.{hint} All: {', '.join(catalog())}; also any class of monai.networks.nets and a "
        f"dotted path."
    )


def network_class(name: str) -> type[nn.Module]:
    """The class behind a registered name, a MONAI class name or a dotted path."""
    return _import_class(network_target(name))


def create_network(name: str, **arguments: Any) -> nn.Module:
    """Build a network by a registered name, the name of a MONAI class, or a dotted path.

    Raises:
        ConfigError: unknown name, or an argument that the constructor does not take.

    Examples:
        >>> network = medseg.create_network("hnoseg_xs", spatial_dims=3, in_channels=4, out_channels=4)
        >>> sum(p.numel() for p in network.parameters())
        28248
    """
    cls = network_class(name)
    parameters = inspect.signature(cls).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for argument in arguments:
            if argument not in parameters:
                raise ConfigError(f"Network '{name}' has no argument '{argument}'.{nearest(argument, parameters)}")
    return cls(**arguments)


def _import_class(path: str) -> type[nn.Module]:
    module_name, _, class_name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"Network '{path}' cannot be imported ({error}); check the dotted path and your PYTHONPATH."
        ) from error
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        raise ConfigError(f"'{path}' is not a torch.nn.Module class; name a network class.")
    return cls
