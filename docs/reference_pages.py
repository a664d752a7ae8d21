"""Pages of the reference that are made from the code when the site is built, so that they cannot differ from it.

``pages()`` gives path -> Markdown. ``mkdocs.yml`` names this file as a hook, which adds them to the site and puts a
bundle's table of original commands where a page says ``<!-- original commands: NAME -->``, and what bundles say of
their authors' figures where it says ``<!-- published figures -->``.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from floor_plan import floor_plan
from messages import findings, messages

import medseg
from medseg import errors, losses, optimizers
from medseg.bundle.build import BundleRecipe, base_file, named_recipes
from medseg.bundle.config_check import RANGES
from medseg.bundle.draft import Draft
from medseg.bundle.recipe import leaves
from medseg.cli.commands import COMMANDS
from medseg.cli.options import REQUIRED, Option, described, read_options, read_summary
from medseg.cli.parts import describe_options
from medseg.cli.values import form, metavar
from medseg.data import inspect_cases, read_datalist
from medseg.data.phantom import write_phantom
from medseg.datasets import dataset_module, datasets
from medseg.engines import SegmentationTrainer
from medseg.networks import network_class
from medseg.networks.catalog import catalog
from medseg.optimizers.schedules import SCHEDULES, ScheduleSettings
from medseg.shipped import shipped_bundles, shipped_lists
from medseg.submission import challenge_module, challenges
from medseg.transforms import patches, recipes
from medseg.workflows.new_bundle import PlanRequest, planned_draft

ROOT = Path(__file__).parents[1]
BASE = Path(medseg.__file__).parent / "bundle" / "base"
PLANNED = ("generated", "light", "sliding_window", "ensemble")  # what `medseg train --network` stands on
INSIDE = {"train", "validate", "evaluator", "run", "initialize", "finalize"}  # wiring, not settings
_ORIGINAL = re.compile(r"<!-- original commands: (\w+) -->")
_PUBLISHED = "<!-- published figures -->"


def pages() -> dict[str, str]:
    """Path below ``docs/`` -> content of each generated page."""
    return {
        "reference/commands.md": commands(),
        "reference/config.md": config(),
        "reference/exit-statuses.md": exit_statuses(),
        "reference/messages.md": all_messages(),
        "reference/networks.md": networks(),
        "reference/losses.md": components(),
        "reference/datasets.md": data_sets(),
        "reference/challenges.md": all_challenges(),
        "reference/bundles/index.md": bundles(),
        **{f"reference/bundles/{name}.md": text for name, text in bundle_pages()},
        "explanation/planned.md": planned(),
        "explanation/threat-model.md": (ROOT / "bundles" / "SECURITY.md").read_text(encoding="utf-8"),
        "explanation/floor_plan.svg": floor_plan(),
    }


def on_files(files: Any, config: Any) -> Any:
    """MkDocs: the generated files are part of the site."""
    from mkdocs.structure.files import File

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs: tables of original commands and of published figures are put in."""
    if _PUBLISHED in markdown:
        markdown = markdown.replace(_PUBLISHED, published_figures())
    return _ORIGINAL.sub(lambda found: original_commands(found[1]), markdown)


# ---------------------------------------------------------------------- Markdown
def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; cells are one line each."""
    head = list(header)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or " "


def code(value: object) -> str:
    """In the type of code; empty stays empty."""
    return f"`{value}`" if value not in ("", None) else ""


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *parts]) + "\n"


# ---------------------------------------------------------------------- commands
def commands() -> str:
    """Every command with its options."""
    intro = (
        "Made from the commands' settings classes, as `medseg COMMAND --help` is; here each option has its whole "
        "description. What a command can do, one Python call can do: the function is named below each command, and "
        "takes the options as keyword arguments."
    )
    rows = [(f"[`{name}`](#{anchor(name)})", read_summary(row.function)) for name, row in COMMANDS.items()]
    return page("Commands", intro, table(("command", "what it does"), rows), *map(command, COMMANDS))


def anchor(name: str) -> str:
    return f"medseg-{name.replace(' ', '-')}"


def command(name: str) -> str:
    """One command's section."""
    row = COMMANDS[name]
    settings, options = read_options(row.function)
    rows = [(_option(o), _default(o), _sentence(o.help)) for o in options]
    rows += [("`--list`", "", f"{row.parts.about}.")] if row.parts else []
    rows += [("`--trust_bundle`", "", "Run what a bundle's config has besides known components.")] * (
        row.evaluates_bundles
    )
    rows += [("`--debug`", "", "Show the trace of an error and debug messages.")]
    examples = "\n".join(f"medseg {name} {example}".rstrip() for example in (row.example, row.another))
    return "\n\n".join(
        [
            f"## medseg {name} {{ #{anchor(name)} }}",
            read_summary(row.function),
            table(("option", "default", "meaning"), rows),
            f"```text\n{examples}\n```",
            f"In Python: `{row.function}`, settings in `{settings}`.",
        ]
    )


def _option(option: Option) -> str:
    if word := option.metadata.get("positional"):
        return code(word)
    if option.annotation == "bool":
        return " or ".join(code(f"--{name}") for name in option.names)
    return " or ".join(code(f"--{name} {metavar(option)}") for name in option.names)


def _default(option: Option) -> str:
    if option.default is REQUIRED:
        return "required" if len(option.names) < 2 else "one of them"
    if others := option.metadata.get("or"):
        names = [others] if isinstance(others, str) else others
        return "one of this, " + ", ".join(code(f"--{name}") for name in names)
    return code(option.shown) or ("repeatable" if form(option).get("action") == "append" else "")


def _sentence(text: str) -> str:
    first = text.partition(" ")[0].rstrip(",.:;")
    return (text[:1].upper() if first.isalpha() and first.islower() else text[:1]) + text[1:].rstrip(".") + "."


def exit_statuses() -> str:
    """The table of the family of errors, and its classes."""
    found = (inspect.getdoc(errors) or "").partition("| status")
    classes = [getattr(errors, name) for name in errors.__all__ if inspect.isclass(getattr(errors, name))]
    rows = [(code(cls.__name__), str(cls.status), str(inspect.getdoc(cls)).partition("\n")[0]) for cls in classes]
    return page(
        "Exit statuses",
        "Every command ends with one of these. A message is one sentence: what is wrong, what was expected, what to "
        "do. `--debug` shows the trace.",
        f"{found[1]}{found[2]}",
        "In Python the same mistakes are exceptions of one family, in `medseg.errors`:",
        table(("exception", "status", "of what"), rows),
    )


def all_messages() -> str:
    """Every sentence of an error, by exit status, and what is found in cases."""
    meanings = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", inspect.getdoc(errors) or "", re.MULTILINE))
    parts = []
    for status, texts in messages().items():
        parts += [f"## Status {status}: {meanings[str(status)]}", table(("message",), [(text,) for text in texts])]
    return page(
        "Messages",
        "Read from the code; `…` stands for what is filled in, such as a file or a value, and often for the nearest "
        "valid name. Search the page for the words that are always there. A message says what is wrong, what was "
        "expected, and what to do.",
        "## What is found in a case",
        "`medseg check`, and `train` before it begins, read every case and list all of these at once; they end with "
        "status 3 unless only warnings are left. In `infer` and `validate` such a case is skipped, listed in "
        "`failures.json`, and the command ends with status 6.",
        table(("found", "what to do"), findings()),
        *parts,
    )


# ---------------------------------------------------------------------- config
@cache
def drafts() -> Mapping[str, Draft]:
    """Device -> the bundle that is planned for a network on a phantom."""
    with tempfile.TemporaryDirectory() as folder:
        datalist = read_datalist(write_phantom(output=folder, cases=5))
        training, _ = datalist.split(0)
        facts = inspect_cases(training, datalist.label_space, datalist.channels, root=datalist.data_dir)
        devices = ("cpu", "cuda")
        return {d: planned_draft(PlanRequest("ssh_unet", d, {}), datalist, facts, len(training)) for d in devices}


def config() -> str:
    """Every key that ``--set`` takes by its name alone, and the arguments of the components that they go to."""
    trees = {file: drafts()["cpu"].recipe.config(file).tree for file in ("train", "inference")}
    keys = [key for key in dict.fromkeys(key for tree in trees.values() for key in tree) if key not in INSIDE]
    made = {key for key in keys if any(_target(tree.get(key)) for tree in trees.values())}
    rows = {key: _config_row(key, trees) for key in keys}
    parts = [
        "A run's or bundle's `configs/train.yaml` and `configs/inference.yaml` hold these keys. `--set KEY=VALUE` "
        "changes one; `a::b` is a value inside another: `--set preprocess::spacing=[1,1,2]`. `medseg config RUN KEY` "
        "shows a value, where it comes from and what uses it. A misspelt key, an argument that nothing takes and a "
        "value out of range are refused before anything is read.",
        "Defaults are those of `medseg train --network`; *planned* means that the data and the machine decide "
        "([how](../explanation/plan.md)). A published bundle has its own values.",
        "## Settings",
        table(_CONFIG, [rows[key] for key in keys if key not in made]),
        "## Components",
        "Their defaults are classes or functions; `::` names an argument, such as `--set optimizer::amsgrad=true`, and "
        "a mapping with `_target_` replaces the whole.",
        table(_CONFIG, [rows[key] for key in keys if key in made]),
        "## Keys of single bundles",
        "These recipes of `medseg/bundle/base` and `medseg/bundle/recipes` add keys of their own.",
        table(("key", "meaning", "default", "range", "recipe"), _further({*keys, *INSIDE})),
        "## Preparation: `preprocess::…`",
        arguments(recipes.preprocessing, skip=("keys", "label_space", "previous")),
        "## Augmentation: `augment::…`",
        arguments(recipes.augmentation, skip=("label_space", "keys")),
        "With `--recipe nnunet`, `augment::…` is `medseg.transforms.patch_augmentation`; its rotation and scaling are "
        "`augment::spatial::…`:",
        arguments(patches.patch_augmentation, skip=("label_space", "keys")),
        arguments(patches.RandRotateScaled, skip=("keys",)),
        "## Named trainings: `--recipe`",
        "A recipe states values, the plan fills those that it leaves open; `--set` changes any of them.",
        *map(named_recipe, named_recipes()),
        "## Learning-rate schedules",
        f"`schedule` is one of {', '.join(map(code, SCHEDULES))}; its numbers are set by `lr_scheduler::…`:",
        arguments(ScheduleSettings, section="Attributes:\n"),
        "## Trainer: `train::trainer::…`",
        arguments(SegmentationTrainer, skip=("args", "kwargs")),
    ]
    return page("Config keys", *parts)


_CONFIG = ("key", "meaning", "default", "range", "config", "acts in")


def _target(value: Any) -> Any:
    return value.get("_target_") if isinstance(value, Mapping) else None


def _config_row(key: str, trees: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    base = BundleRecipe(PLANNED, ())
    file = next(file for file, tree in trees.items() if key in tree)
    planned_here = {id_.partition("::")[0] for id_, of in drafts()["cpu"].train.origins.items() if of.kind == "plan"}
    default = "planned" if key in planned_here else shown_default(base.config(file).tree[key])
    where = " and ".join(file for file, tree in trees.items() if key in tree)
    users = dict.fromkeys(used for tree in trees.values() for used in users_of(tree, key))
    acts = ", ".join(map(code, list(users)[:4])) + (f" and {len(users) - 4} more" if len(users) > 4 else "")
    return code(key), meaning(key, *PLANNED, "common"), default, RANGES.get(key, (None, ""))[1], where, acts


def _further(known: set[str]) -> Iterator[tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name in ("universal", *(path.stem for path in sorted(BASE.glob("*.yaml"))), "nnunet", *named_recipes()):
        for section in BundleRecipe.read(_recipe_file(name), "base").own:
            for key, value in section.layer.changes.items():
                if (
                    key.isidentifier()
                    and key not in {*known, *found}
                    and section.file in ("both", "train", "inference")
                ):
                    expected = RANGES.get(key, (None, ""))[1]
                    found[key] = (code(key), meaning(key, name), shown_default(value), expected, code(name))
    yield from found.values()


def _recipe_file(name: str) -> Path:
    path = base_file(name)
    if path is None:
        raise LookupError(f"no recipe {name}")
    return path


def named_recipe(name: str) -> str:
    """A recipe as it is."""
    return f"### {name}\n\n```yaml\n{_recipe_file(name).read_text(encoding='utf-8')}```"


def meaning(key: str, *names: str) -> str:
    """The comment at the end of a key's line in one of these recipes.

    Raises:
        LookupError: there is none.
    """
    for name in names:
        text = _recipe_file(name).read_text(encoding="utf-8")
        if found := re.search(rf"^  {key}:(?!:).*?  ?# (.*)$", text, re.MULTILINE):
            return found[1]
    raise LookupError(f"no recipe of {', '.join(names)} says what '{key}' means; add a comment to its line")


def shown_default(value: Any) -> str:
    """A value, or the component that it is."""
    if isinstance(value, Mapping) and "_target_" in value:
        return code(value["_target_"])
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return code(text)


def users_of(tree: Mapping[str, Any], key: str) -> list[str]:
    """Ids whose value refers to a key, or to something inside it."""
    reference = re.compile(rf"@{re.escape(key)}(?:::.*)?")
    return [id_ for id_, value in leaves(tree) if isinstance(value, str) and reference.fullmatch(value)]


def arguments(of: Any, *, skip: Iterable[str] = (), section: str = "Args:\n") -> str:
    """The arguments of a function or class, as its docstring says them."""
    said = described(inspect.getdoc(of), section)
    rows = []
    for name, parameter in inspect.signature(of).parameters.items():
        if name not in skip:
            default = "required" if parameter.default is parameter.empty else shown_default(parameter.default)
            rows.append((code(name), default, _sentence(said[name])))
    return table(("argument", "default", "meaning"), rows)


def planned() -> str:
    """What the plan chose for the phantom, with its reasons, on both devices."""
    found = {device: {s.id: s for s in draft.settings} for device, draft in drafts().items()}
    rows = [
        (code(id_), cpu.value, found["cuda"][id_].value if id_ in found["cuda"] else "", cpu.reason)
        for id_, cpu in found["cpu"].items()
        if cpu.reason
    ]
    return page(
        "A plan, worked out",
        "What `medseg train --network ssh_unet` plans for five cases of the phantom (`medseg phantom`), on a CPU and "
        "on a GPU: the same table that the command prints. [The rules](plan.md) say why.",
        table(("id", "on a CPU", "on a GPU", "reason (CPU)"), rows),
    )


# ---------------------------------------------------------------------- registries
def networks() -> str:
    """The registry of networks, and each constructor's arguments."""
    header = ("name", "network", "dimensions", "parameters", "at", "paper")
    rows, parts = list[Sequence[str]](), list[str]()
    for name, facts in catalog().items():
        dims = " and ".join(f"{d}D" for d in facts.spatial_dims)
        title = facts.title.partition(":")[0]
        rows.append((f"[`{name}`](#{name})", title, dims, f"{facts.parameters:,}", facts.setting, facts.paper))
        cls = network_class(name)
        text = (inspect.getdoc(cls) or "").partition("\n\n")[0]
        signature = ", ".join(str(p) for p in list(inspect.signature(cls.__init__).parameters.values())[4:])
        parts.append(f"## {name} {{ #{name} }}\n\n{_sentence(text)}\n\n`{facts.class_name}(spatial_dims, in_channels, "
                     f"out_channels, *, {signature})`")  # fmt: skip
    return page(
        "Networks",
        "`--network` takes a name below, any class of `monai.networks.nets` (`SegResNet`, `DynUNet`, …) or the dotted "
        "path of your own class. Arguments are set by `--set network_def::NAME=VALUE`.",
        table(header, rows),
        *parts,
    )


def components() -> str:
    """Losses and optimisers that MONAI and torch lack."""
    parts = []
    for module in (losses, optimizers):
        rows = []
        for name in module.__all__:
            text = (inspect.getdoc(getattr(module, name)) or "").partition("\n\n")[0]
            rows.append((code(f"{module.__name__}.{name}"), text.replace("``", "`")))
        parts += [f"## {module.__name__.rpartition('.')[2].capitalize()}", table(("name", "what it is"), rows)]
    parts.insert(2, "A config names one by its dotted path, and MONAI's by their own name:\n\n```text\n"
                    '--set "loss={_target_: medseg.losses.PearsonLoss, to_onehot_y: true, softmax: true}"\n'
                    '--set "loss={_target_: DiceFocalLoss, to_onehot_y: true, softmax: true}"\n```')  # fmt: skip
    return page("Losses and optimisers", *parts)


def data_sets() -> str:
    """The registry of data sets."""
    rows = [
        (code(name), facts.title, ", ".join(facts.modality), f"{facts.spatial_dims}D",
         ", ".join(f"{count} {section}" for section, count in facts.splits.items()), facts.terms)
        for name, facts in datasets().items()
    ]  # fmt: skip
    parts = [
        f"## {name}\n\n{facts.title}. Source: {facts.source}.\n\n"
        f"Expected files: {facts.layout}.\n\nOptions: {code(describe_options(dataset_module(name).prepare)) or 'none'}."
        for name, facts in datasets().items()
    ]
    lists = ", ".join(map(code, shipped_lists()))
    return page(
        "Data sets",
        "`medseg prepare NAME --raw ARCHIVE --out DIR` turns an archive as it is unpacked into a checked datalist. "
        "Nothing is downloaded: the images come from their owners, under their terms.",
        table(("name", "data set", "modality", "axes", "published sections", "terms"), rows),
        f"Ready datalists come with every installation; `--json_list` takes their names: {lists}.",
        *parts,
    )


def all_challenges() -> str:
    """The registry of challenges."""
    parts = []
    for name, facts in challenges().items():
        rules = "\n".join([*(f"- {rule}" for rule in facts.documented),
                           *(f"- {rule} (from practice)" for rule in facts.unverified)])  # fmt: skip
        options = describe_options(challenge_module(name).submitted)
        parts.append(
            f"## {name}\n\n{facts.title}: section `{facts.section}`, handed in as `{facts.suffix}` at {facts.source}."
            f"\n\n{rules}\n\nOptions: {code(options) or 'none'}."
        )
    intro = "`medseg submit NAME --run RUN --output FILE` predicts, checks each file by these rules, and packs them."
    return page("Challenges", intro, *parts)


# ---------------------------------------------------------------------- bundles
def bundles() -> str:
    """All published bundles."""
    rows = [(f"[`{name}`]({name}.md)", _readme(name).partition("\n")[0].lstrip("# ")) for name in shipped_bundles()]
    return page(
        "Bundles",
        "Published settings, by name after every installation: `medseg train --bundle NAME …`. They come without "
        "weights.",
        table(("bundle", "network and data"), rows),
    )


def bundle_pages() -> Iterator[tuple[str, str]]:
    """Name and page of every published bundle."""
    return ((name, _readme(name)) for name in shipped_bundles())


def _readme(name: str) -> str:
    return (shipped_bundles()[name] / "docs" / "README.md").read_text(encoding="utf-8")


def original_commands(name: str) -> str:
    """The table of original commands from a bundle's page."""
    found = re.search(r"^## Original (?:command|configuration) and ours\n+((?:\|.*\n)+)", _readme(name), re.MULTILINE)
    if found is None:
        raise LookupError(f"the README of the bundle {name} has no table of original commands")
    return found[1]


def published_figures() -> str:
    """What the bundles' pages state of their authors' figures."""
    rows = []
    for name in shipped_bundles():
        stated = re.search(r"^(Published .*?)\s(?:They are|These are|That is)\s", _readme(name), re.M | re.S)
        if stated is not None:
            rows.append((f"[`{name}`](reference/bundles/{name}.md)", stated[1]))
    return table(("bundle", "published by its authors"), rows)
