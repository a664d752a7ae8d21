"""A bundle that is not written yet: what it will hold, in memory, until all of it is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medseg.bundle.build import BundleRecipe, Section, title_of
from medseg.bundle.compose import checked
from medseg.bundle.config_check import check_overrides
from medseg.bundle.copy import copy_texts
from medseg.bundle.document import describe_data, readme_with, training_settings, write_origins
from medseg.bundle.folder import Bundle
from medseg.bundle.metadata import make_metadata, plain_text
from medseg.bundle.plan_layer import LIGHT, is_universal, plan_recipe
from medseg.bundle.recipe import Layer, Recipe
from medseg.bundle.trust import require_own_folder
from medseg.data.datalist import Datalist
from medseg.data.plan import Plan
from medseg.data.run_settings import Setting
from medseg.networks import network_target
from medseg.storage import write_text

__all__ = ["Draft"]


@dataclass(frozen=True)
class Draft:
    """A bundle for a datalist.

    Attributes:
        recipe: recipe of its configs.
        datalist: copied into it.
        metadata: the content of ``metadata.json``, as far as it does not follow from the configs.
        title: what the configs begin with.
        source: bundle whose texts are copied, if it is made from one.
        texts: file in the bundle -> text.
    """

    recipe: BundleRecipe
    datalist: Datalist
    metadata: Mapping[str, Any]
    title: str
    source: Path | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def planned(
        cls, network: str, arguments: Mapping[str, Any], datalist: Datalist, plan: Plan, recipe: str = LIGHT
    ) -> Draft:
        """For a network and what was planned for it.

        Args:
            network: registered name, MONAI class or dotted path.
            arguments: the network's constructor arguments.
            datalist: that it trains on.
            plan: what was chosen.
            recipe: one of ``bundle/recipes``.
        """
        definition = {"_target_": network_target(network), **arguments}
        built = plan_recipe(definition, datalist, plan, recipe=recipe, universal=is_universal(network, datalist))
        metadata = make_metadata(network, built.config("train").tree, datalist)
        texts = {"docs/README.md": _readme(network, datalist), "docs/data_license.txt": _data_license(datalist)}
        return cls(built, datalist, metadata, title_of(metadata), texts=texts)

    @classmethod
    def copied(cls, bundle: Bundle, overlays: Sequence[str], datalist: Datalist) -> Draft:
        """From a bundle, with overlays over both its configs.

        Raises:
            ConfigError, ModelError: it cannot be read, or links lead out of it.
        """
        require_own_folder(bundle.root)
        names = ["train", *(["inference"] if bundle.has("inference") else [])]
        recipe = BundleRecipe((), tuple(Section(name, bundle.layer(name)) for name in names))
        for name in overlays:
            recipe = recipe.over(bundle.layer(name, "overlay"))
        return cls(recipe, datalist, bundle.metadata, f"From the bundle {bundle.root.name}", bundle.root)

    def over(self, *layers: Layer) -> Draft:
        """With changes of its configs, which name ids that are there.

        Raises:
            ConfigError: an id is not there, or a value is of another kind.
        """
        draft = self
        for layer in layers:
            check_overrides(draft.train.tree, layer.changes, "train.yaml")
            draft = replace(draft, recipe=draft.recipe.over(layer))
        return draft

    @cached_property
    def train(self) -> Recipe:
        """Its ``train.yaml``."""
        return self.recipe.config("train")

    @cached_property
    def settings(self) -> list[Setting]:
        """The settings of its training, each with its origin."""
        return training_settings(self.train)

    @property
    def mirrored(self) -> list[int]:
        """Axes whose mirror images its inference averages."""
        inference = self.recipe.config("inference").tree if "inference" in self.recipe.files else {}
        return list(inference.get("mirror_axes") or ())

    def check(self) -> None:
        """Hold both configs against what may be said and run.

        Raises:
            ConfigError, ModelError: as ``resolve``.
        """
        for file in ("train", "inference"):
            if file in self.recipe.files:
                checked(self.recipe.config(file))

    def write(self, folder: str | Path) -> Path:
        """Write ``configs/``, ``docs/`` and ``LICENSE``; returns the folder."""
        root = Path(folder)
        for name in ("configs", "docs", "models"):
            (root / name).mkdir(parents=True, exist_ok=True)
        if self.source is not None:
            copy_texts(self.source, root)
        self.recipe.write(root, self.title)
        (root / "configs" / "datalist.json").write_bytes(self.datalist.as_stored())
        if self.metadata:
            described = describe_data(self.metadata, self.train.tree, self.datalist.channels)
            write_text(root / "configs" / "metadata.json", json.dumps(described, indent=4, ensure_ascii=False) + "\n")
        readme = root / "docs" / "README.md"
        texts = {"docs/README.md": readme.read_text(encoding="utf-8") if readme.is_file() else "", **self.texts}
        texts["docs/README.md"] = readme_with(texts["docs/README.md"], self.settings)
        for name, text in texts.items():
            write_text(root / name, text)
        write_origins(root, self.train)
        return root


def _readme(network: str, datalist: Datalist) -> str:
    return f"""# {network} on {datalist.name}

A MONAI bundle written by medseg. Labels: {", ".join(datalist.label_space.channels)}.

    python -m monai.bundle run --config_file configs/train.yaml --dataset_dir DIR
    python -m monai.bundle run --config_file "['configs/train.yaml','configs/evaluate.yaml']" --dataset_dir DIR
    python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir DIR --output_dir OUT
    python -m monai.bundle run --config_file "['configs/inference.yaml','configs/ensemble.yaml']" --dataset_dir DIR

Run them in this folder.
"""


def _data_license(datalist: Datalist) -> str:
    terms = plain_text(datalist.table.get("licence") or datalist.table.get("license"), "not stated in the datalist")
    source = plain_text(datalist.table.get("reference"), "not stated in the datalist")
    return (
        f"Data: {datalist.name}. Source: {source}. Terms: {terms}.\n\n"
        "The images are not part of this bundle. The terms of their owners hold for whatever is derived from them,\n"
        "weights included; read them before you publish weights that were trained with this bundle.\n"
    )
