"""Which ``$`` expressions are known by their form alone: nothing is evaluated or imported to find it out.

An expression is built from constants, references, indices, conditions, lists, calls of ``EXPRESSION_NAMES`` and a few
builtins. Powers, shifts, text formatting and repetition are refused: ``10**10**8`` is short and never ends.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from monai.bundle import ReferenceResolver

from medseg.bundle.known_parts import EXPRESSION_NAMES, MODULES

__all__ = ["PRE_IMPORTED", "Known", "count_loops", "imported", "joined", "references"]

PRE_IMPORTED = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}  # by MONAI's parser
_REFERENCES = "__local_refs"  # what MONAI writes for @id before it evaluates
_LONGEST = 2000  # characters; the longest that bundles need has 190
_BUILTINS = {"bool", "float", "int", "len", "list", "max", "min", "str", "tuple"}
_NUMERIC = {"float", "int", "len"}
_MEMBERS = {"dataset", "endswith", "items", "keys", "named_parameters", "parameters", "run", "startswith"}
_MEMBERS |= {"state_dict", "to", "transforms", "values"}
_ARITHMETIC = (ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
_PLAIN = (ast.List, ast.Tuple, ast.Dict, ast.BoolOp, ast.Compare, ast.IfExp, ast.Starred, ast.Slice, ast.Subscript)
_SHAPES = (ast.boolop, ast.cmpop, ast.Load)
_SAVES = "medseg.transforms.window_postprocessing"  # its third argument is a folder


def _parse(text: str) -> ast.expr | None:
    """The tree of what MONAI would evaluate, after its own replacements in the text; ``None`` where Python takes none.

    The replacement is made by MONAI's own function: it works on characters, so that ``'@f{…}'`` becomes an f-string.
    """
    text = ReferenceResolver.normalize_id(text)
    if len(text) > _LONGEST or _REFERENCES in text:
        return None
    text = ReferenceResolver.update_refs_pattern(text, ReferenceResolver.match_refs_pattern(text))
    try:
        return ast.parse(text[1:], mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def references(text: str) -> list[str]:
    """The ids that an expression refers to, each as often as it does."""
    return [name for name, count in ReferenceResolver.match_refs_pattern(text).items() for _ in range(count)]


def count_loops(text: str) -> int:
    tree = _parse(text)
    return 0 if tree is None else sum(isinstance(node, ast.comprehension) for node in ast.walk(tree))


def imported(text: str) -> dict[str, str] | None:
    """Alias -> dotted path of an import expression; ``None`` for anything else."""
    try:
        body = ast.parse(text[1:]).body if len(text) <= _LONGEST else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    node = body[0] if len(body) == 1 else None
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    return {name.asname or name.name: name.name for name in node.names} if isinstance(node, ast.Import) else None


def joined(text: str) -> list[tuple[str, bool]]:
    """The parts of ``$@id + '/…' + @other``, each with whether it is an id; empty for any other expression."""
    parts: list[ast.expr] = []
    node = _parse(text)
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts.append(node.right)
        node = node.left
    found = []
    for part in (node, *reversed(parts)):
        name = _reference(part) if part is not None else None
        if name is not None:
            found.append((name, True))
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.append((part.value, False))
        else:
            return []
    return found


class Known:
    """Judge of the expressions of one config.

    Args:
        aliases: name -> all dotted paths that the config gives it.
        value_of: id -> its content through plain references, unresolved; ``None`` where there is none.
        is_inside: whether the id's content is a path in the folder of the run or of its results.
    """

    def __init__(
        self, aliases: Mapping[str, set[str]], value_of: Callable[[str], Any], is_inside: Callable[[str], bool]
    ) -> None:
        self.aliases = aliases
        self.value_of = value_of
        self.is_inside = is_inside

    def __call__(self, text: str) -> bool:
        paths = imported(text)
        if paths is not None:
            return all(path in MODULES or path in EXPRESSION_NAMES for path in paths.values())
        tree = _parse(text)
        try:
            return tree is not None and self._known(tree, frozenset())
        except RecursionError:
            return False

    def _known(self, node: ast.AST, bound: frozenset[str]) -> bool:
        if isinstance(node, ast.Constant):
            return node.value is None or isinstance(node.value, (str, int, float))
        if _reference(node) is not None or isinstance(node, _SHAPES):
            return True
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._known_name(node, bound)
        if isinstance(node, ast.Call):
            return self._known_call(node, bound)
        if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Invert):
            return self._known(node.operand, bound)
        if isinstance(node, ast.BinOp):
            numbers = isinstance(node.op, _ARITHMETIC) and self._is_number(node)
            return (numbers or isinstance(node.op, ast.Add)) and all(
                self._known(side, bound) for side in (node.left, node.right)
            )
        if isinstance(node, ast.ListComp):
            return self._known_loop(node, bound)
        return isinstance(node, _PLAIN) and all(self._known(child, bound) for child in ast.iter_child_nodes(node))

    def _known_name(self, node: ast.Name | ast.Attribute, bound: frozenset[str]) -> bool:
        """A dotted path is judged as a whole; of anything else only the members in ``_MEMBERS`` are used."""
        paths = self._paths(node)
        if paths is not None:
            return all(path in EXPRESSION_NAMES for path in paths)
        if isinstance(node, ast.Name):
            return node.id in _BUILTINS or node.id in bound
        return node.attr in _MEMBERS and self._known(node.value, bound)

    def _paths(self, node: ast.expr) -> set[str] | None:
        """What ``alias.b.c`` may stand for; ``None`` where no alias begins it."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.aliases:
            return None
        return {".".join([path, *reversed(names)]) for path in self.aliases[node.id]}

    def _known_call(self, node: ast.Call, bound: frozenset[str]) -> bool:
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        if not (self._known(node.func, bound) and all(self._known(value, bound) for value in values)):
            return False
        if _SAVES not in (self._paths(node.func) or ()):
            return True
        folder = _reference(node.args[2]) if len(node.args) == 3 and not node.keywords else None
        return folder is not None and self.is_inside(folder)

    def _known_loop(self, node: ast.ListComp, bound: frozenset[str]) -> bool:
        loop = node.generators[0]
        name = loop.target.id if isinstance(loop.target, ast.Name) else None
        taken = {_REFERENCES, *_BUILTINS, *self.aliases}  # a function in their place would not be what its name says
        if name is None or len(node.generators) > 1 or loop.is_async or name in taken:
            return False
        inner = bound | {name}
        return self._known(loop.iter, bound) and all(self._known(part, inner) for part in (node.elt, *loop.ifs))

    def _is_number(self, node: ast.AST, depth: int = 0) -> bool:
        """Whether a node is a number by its form: text and lists times a number fill the memory."""
        if depth > 20:
            return False
        if isinstance(node, ast.Constant):
            return isinstance(node.value, (int, float))
        name = _reference(node)
        if name is not None:
            value = self.value_of(name)
            if isinstance(value, str) and value.startswith("$"):
                tree = _parse(value)
                return tree is not None and self._is_number(tree, depth + 1)
            return value is None or isinstance(value, (int, float))
        if isinstance(node, ast.Subscript):
            name = _reference(node.value)
            value = None if name is None else self.value_of(name)
            return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)
        if isinstance(node, ast.BinOp):
            allowed = isinstance(node.op, (ast.Add, *_ARITHMETIC))
            return allowed and self._is_number(node.left, depth) and self._is_number(node.right, depth)
        if isinstance(node, ast.UnaryOp):
            return self._is_number(node.operand, depth)
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
        return name in _NUMERIC and name not in self.aliases


def _reference(node: ast.AST) -> str | None:
    """The id that a node refers to, if it is one reference."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == _REFERENCES:
        return str(node.slice.value) if isinstance(node.slice, ast.Constant) else None
    return None
