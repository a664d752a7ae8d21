"""Every listed name is what the list says of it; what configs of medseg need is listed."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
from typing import Any

import pytest
from monai.bundle.config_item import ComponentLocator
from torch.optim import Optimizer

import medseg.losses
import medseg.optimizers
from medseg.bundle.known_parts import WRITES, components
from medseg.networks import catalog

FETCHING = {"pretrained", "pretrained_url", "download", "url"}


def look_up(path: str) -> Any:
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise AssertionError(path)


@pytest.fixture(scope="module")
def locator() -> ComponentLocator:
    return ComponentLocator()


def test_every_name_exists_and_belongs_to_its_package() -> None:
    for path in sorted(name for name in components() if "." in name):
        found = look_up(path)
        assert callable(found), path
        home = getattr(found, "__module__", None)
        assert home is None or home.partition(".")[0] == path.partition(".")[0], (path, home)


@pytest.mark.parametrize("path", sorted(name for name in components() if name.startswith("medseg.")))
def test_no_module_has_the_name_of_a_component(path: str) -> None:
    """``pydoc.locate``, by which MONAI finds components, takes a module of that name from Python 3.12 on."""
    package, _, name = path.rpartition(".")
    with contextlib.suppress(ModuleNotFoundError):  # the package is a class, whose method is the component
        assert importlib.util.find_spec(f"{package}.{name}") is None


def test_no_component_fetches_by_default() -> None:
    for path in sorted(name for name in components() if "." in name):
        parameters = inspect.signature(look_up(path)).parameters.values()
        assert not [p.name for p in parameters if p.name in FETCHING and p.default], path


def test_a_bare_name_is_monais(locator) -> None:
    for name in sorted(name for name in components() if "." not in name):
        modules = locator.get_component_module_name(name)
        assert modules, f"{name}: MONAI would import a module of this name"
        first = modules if isinstance(modules, str) else modules[0]
        dotted = next(path for path in components() if path.endswith(f".{name}") and path.startswith("monai."))
        assert getattr(importlib.import_module(first), name) is look_up(dotted), name


def optimizers() -> list[type[Optimizer]]:
    found = (getattr(medseg.optimizers, name) for name in medseg.optimizers.__all__)
    return [item for item in found if inspect.isclass(item) and issubclass(item, Optimizer)]


def test_what_medseg_offers_to_configs_is_listed() -> None:
    offered = {f"medseg.losses.{name}" for name in medseg.losses.__all__}
    offered |= {f"medseg.optimizers.{cls.__name__}" for cls in optimizers()}
    offered |= {f"medseg.networks.{facts.class_name}" for facts in catalog().values()}
    assert offered <= components()


def test_arguments_that_name_a_place_are_known() -> None:
    """A component of ours that gets a folder to write to calls it by one of ``WRITES``."""
    named = {"output_dir", "directory", "model_path", "cache_dir", "folder", "target", "save_dir", "log_dir"}
    for path in sorted(name for name in components() if name.startswith("medseg.")):
        assert set(inspect.signature(look_up(path)).parameters) & named <= WRITES | {"target"}, path
