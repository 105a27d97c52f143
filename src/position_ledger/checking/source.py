"""Find every SQL statement in Python source without running it: strings that are SQL, and what they are composed of.

A string is followed through implicit and explicit concatenation, f-strings, ``format``, psycopg's ``SQL`` and
``Identifier``, local names that are assigned once, constants of modules and classes, and imports between the files that
are read together. What is only known when the code runs becomes a hole.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Final, TypeAlias

from position_ledger.checking.files import Source, Sources, assigned
from position_ledger.checking.text import (
    ABOUT_THE_SESSION,
    DESCRIBED,
    KEY,
    SCHEMA,
    TABLE,
    UTILITY,
    Hole,
    Place,
    SqlText,
    filled,
    has_open_braces,
    joined,
    looks_like_sql,
    with_braces,
)

__all__ = ["statements_of"]

_OURS: Final = __name__.partition(".")[0]
EXECUTING: Final = frozenset({"execute", "executemany", "stream", "copy"})
"""Methods whose first argument is a statement and whose second its parameters."""
DEPTH_MAX: Final = 20
"""How many names a string is followed through; beyond that it is a hole."""


Parts: TypeAlias = tuple[str | Hole, ...]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def statements_of(sources: Sources) -> list[SqlText]:
    """Every statement of these files, by file and line; the same text at the same place once.

    Texts with holes are those that the code composes where it runs.

    Raises:
        ConfigurationError: a file is no Python; names file and line.
    """
    found: list[SqlText] = []
    fragments: set[tuple[Place, str]] = set()
    for source in sources.with_sql():
        finder = _Finder(source, sources)
        found += [text for text in finder.found() if not sources.is_for_others(text.place)]
        fragments |= finder.fragments
    whole = [text for text in _merged(found) if text.is_executed or (text.place, text.text) not in fragments]
    return sorted(whole, key=lambda text: (str(text.place.file), text.place.line, text.text))


def _merged(found: Sequence[SqlText]) -> Iterator[SqlText]:
    """Each text once for each way in which its parameters are given: where it is defined, it is run somewhere else."""
    by_text: dict[tuple[Place, Parts], dict[frozenset[tuple[int | str, str]], SqlText]] = {}
    executed: set[tuple[Place, Parts]] = set()
    for text in found:
        ways = by_text.setdefault((text.place, text.parts), {})
        way = frozenset(text.families.items())
        if way not in ways or text.has_parameters:
            ways[way] = text
        if text.is_executed:
            executed.add((text.place, text.parts))
    for key, ways in by_text.items():
        known = [text for text in ways.values() if text.families] or list(ways.values())
        yield from (replace(text, is_executed=key in executed) for text in known)


@dataclass(frozen=True, slots=True)
class _Value:
    """An expression as text, and the node where the text begins."""

    parts: Parts
    source: Source
    node: ast.expr


class _Finder:
    """Walks one file, innermost function known, and evaluates what may be a statement."""

    def __init__(self, source: Source, sources: Sources) -> None:
        self._source = source
        self._sources = sources
        self._found: list[SqlText] = []
        self.fragments: set[tuple[Place, str]] = set()
        """Texts that are put into longer ones: the beginning of a statement is none itself."""
        self._functions: list[Function] = []
        self._locals: dict[Function, dict[str, ast.expr | None]] = {}
        self._known = {id(node): self._constant(name, 0, source) for name, node in source.constants.items()}

    def found(self) -> list[SqlText]:
        self._visit(self._source.tree)
        return self._found

    # walking

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt) and not self._source.may_hold_sql(node):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring, or what describes a constant
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            self._in_function(node)
            return
        if isinstance(node, ast.Call) and self._executes(node):
            for child in [*node.args[1:], *node.keywords, node.func]:
                self._visit(child)
            return
        if isinstance(node, ast.expr) and self._is_statement(node):
            return
        for child in ast.iter_child_nodes(node):
            if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):  # a piece is no statement
                self._visit(child)

    def _in_function(self, node: Function) -> None:
        self._functions.append(node)
        for child in ast.iter_child_nodes(node):
            self._visit(child)
        self._functions.pop()

    def _local(self, function: Function) -> dict[str, ast.expr | None]:
        if function not in self._locals:
            self._locals[function] = _locals(function)
        return self._locals[function]

    def _executes(self, call: ast.Call) -> bool:
        """Whether the call runs a statement that can be told; its parameters are then told with it."""
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in EXECUTING or not call.args:
            return False
        value = self._text(call.args[0], 0)
        if value is None:
            return False
        text = self._sql(value)
        if text.first_word not in DESCRIBED | UTILITY:
            return text.first_word in ABOUT_THE_SESSION
        given = [
            *call.args[1:2],
            *(word.value for word in call.keywords if word.arg in {"params", "vars", "params_seq"}),
        ]
        families = self._parameters(given[0]) if given and call.func.attr != "executemany" else {}
        self._found.append(replace(text, families=families, has_parameters=bool(given), is_executed=True))
        return True

    def _is_statement(self, node: ast.expr) -> bool:
        """Whether an expression is a statement by its look; then its parts are none of their own."""
        if isinstance(node, ast.Name | ast.Attribute):
            return False
        value = self._known.get(id(node)) or self._text(node, 0)
        if value is None:
            return False
        text = self._sql(value)
        if not looks_like_sql(text):
            return isinstance(node, ast.Constant)
        self._found.append(text)
        return True

    def _sql(self, value: _Value) -> SqlText:
        parts = value.parts
        if all(isinstance(part, str) for part in parts) and has_open_braces("".join(map(str, parts))):
            parts = with_braces("".join(map(str, parts)))
        place = Place(value.source.file, value.node.lineno)
        return SqlText(parts, place, is_whole_lines=_is_whole_lines(value))

    # evaluating

    def _text(self, node: ast.expr, depth: int, source: Source | None = None) -> _Value | None:
        """An expression as text with holes; None if it is none, or not known."""
        here = source or self._source
        if depth > DEPTH_MAX:
            return None
        parts: Parts | None = None
        match node:
            case ast.Constant(value=str(text)):
                parts = (text,)
            case ast.Constant(value=bytes(content)):
                parts = (content.decode(errors="replace"),)
            case ast.JoinedStr(values=values):
                parts = joined([part for one in values for part in self._of_f_string(one, depth, here)])
        return _Value(parts, here, node) if parts is not None else self._made(node, depth, here)

    def _made(self, node: ast.expr, depth: int, here: Source) -> _Value | None:
        """What is put together, named or called."""
        match node:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._sum(left, right, depth, here)
            case ast.Name() | ast.Attribute():
                return self._named(node, depth, here)
            case ast.Call():
                return self._called(node, depth, here)
        return None

    def _of_f_string(self, node: ast.expr, depth: int, here: Source) -> Parts:
        if isinstance(node, ast.Constant):
            return (str(node.value),)
        inside = node.value if isinstance(node, ast.FormattedValue) else node
        value = self._text(inside, depth + 1, here)
        if value is not None:
            self._note_fragments(value)
            return value.parts
        if isinstance(inside, ast.Constant) and isinstance(inside.value, int):
            return (str(inside.value),)
        return (Hole(),)

    def _sum(self, left: ast.expr, right: ast.expr, depth: int, here: Source) -> _Value | None:
        first, second = self._text(left, depth + 1, here), self._text(right, depth + 1, here)
        if first is None and second is None:
            return None
        self._note_fragments(first, second)
        parts = [*(first.parts if first else (Hole(),)), *(second.parts if second else (Hole(),))]
        return _Value(joined(parts), here, first.node if first else left)

    def _note_fragments(self, *values: _Value | None) -> None:
        for value in values:
            if value is not None:
                text = self._sql(value)
                self.fragments.add((text.place, text.text))

    def _named(self, node: ast.Name | ast.Attribute, depth: int, here: Source) -> _Value | None:
        name = _path(node)
        if here is self._source and isinstance(node, ast.Name):
            for names in map(self._local, reversed(self._functions)):
                if name in names:
                    local = names[name]
                    return None if local is None else self._text(local, depth + 1, here)
        if name.startswith(("self.", "cls.")):
            attribute = name.partition(".")[2]
            owners = [key for key in here.constants if key.endswith(f".{attribute}")]
            name = owners[0] if len(owners) == 1 else name
        return self._constant(name, depth, here)

    def _constant(self, name: str, depth: int, here: Source) -> _Value | None:
        """A constant of a module or of a class in it, through imports."""
        if name in here.constants:
            node = here.constants[name]
            value = self._text(node, depth + 1, here)
            if value is not None and any(isinstance(part, Hole) for part in value.parts):
                loaded = _loaded(here, name)
                value = value if loaded is None else replace(value, parts=(loaded,))
            return value
        first, _, rest = name.partition(".")
        if first not in here.imports or depth > DEPTH_MAX:
            return None
        module, inside = here.imports[first]
        whole = self._sources.get(f"{module}.{inside}" if inside else module) if rest else None
        if whole is not None:
            return self._constant(rest, depth + 1, whole)
        source = self._sources.get(module) if inside else None
        if source is not None:
            return self._constant(f"{inside}.{rest}" if rest else inside, depth + 1, source)
        return None

    def _called(self, node: ast.Call, depth: int, here: Source) -> _Value | None:
        name = _path(node.func).rpartition(".")[2]
        if isinstance(node.func, ast.Attribute) and name in {"format", "strip", "encode", "lstrip", "rstrip", "join"}:
            base = self._text(node.func.value, depth + 1, here)
            if base is None or name == "join":
                return None
            return base if name != "format" else replace(base, parts=self._formatted(base.parts, node, depth, here))
        if name in {"SQL", "dedent"} and node.args:
            return self._text(node.args[0], depth + 1, here)
        if name == "Identifier" and node.args and not any(isinstance(one, ast.Starred) for one in node.args):
            return self._identifier(node, depth, here)
        if name == "Placeholder":
            return _Value(("%s",), here, node)
        return None

    def _identifier(self, node: ast.Call, depth: int, here: Source) -> _Value | None:
        """A name as SQL; what is known of it only by its kind is a hole of that kind."""
        last = node.args[-1]
        value = self._text(last, depth + 1, here)
        if value is not None and all(isinstance(part, str) for part in value.parts):
            text = "".join(map(str, value.parts)).replace('"', '""')
            return _Value((f'"{text}"',), here, node)
        attribute = _path(last).rpartition(".")[2]
        kind = {"table": TABLE, "key_column": KEY}.get(attribute) if isinstance(last, ast.Attribute) else None
        if len(node.args) == 1 and attribute.endswith("schema"):
            kind = SCHEMA
        return None if kind is None else _Value((Hole(kind),), here, node)

    def _formatted(self, parts: Parts, call: ast.Call, depth: int, here: Source) -> Parts:
        template = with_braces("".join(map(str, parts))) if all(isinstance(part, str) for part in parts) else parts
        values: dict[str, Parts] = {}
        for number, argument in enumerate(call.args):
            value = self._text(argument, depth + 1, here)
            if value is not None:
                values[str(number)] = value.parts
        for word in call.keywords:
            value = self._text(word.value, depth + 1, here)
            if word.arg and value is not None:
                values[word.arg] = value.parts
        return filled(template, values)

    # parameters

    def _parameters(self, node: ast.expr) -> dict[int | str, str]:
        """The Python types of parameters that are told by a literal or by an annotation of the function."""
        named: dict[int | str, ast.expr] = {}
        if isinstance(node, ast.Tuple | ast.List):
            if not any(isinstance(one, ast.Starred) for one in node.elts):
                named = dict(enumerate(node.elts))
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            named = {
                key.value: one for key, one in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
        families = {key: self._family(one) for key, one in named.items()}
        return {key: family for key, family in families.items() if family}

    def _family(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return "" if node.value is None else type(node.value).__name__
        if isinstance(node, ast.Name):
            for names in map(_annotated, reversed(self._functions)):
                if node.id in names:
                    return names[node.id]
        if isinstance(node, ast.Call) and _path(node.func) in {"str", "int", "Decimal", "UUID"}:
            return _path(node.func)
        return "str" if isinstance(node, ast.JoinedStr) else ""


def _loaded(source: Source, name: str) -> str | None:
    """What a module has computed for a constant: one of ours, where importing does nothing, or one that is imported anyway."""
    module = sys.modules.get(source.module)
    if module is None and source.module.startswith(f"{_OURS}."):
        with suppress(ImportError):  # what an extra brings
            module = import_module(source.module)
    if module is None or getattr(module, "__file__", None) != str(source.file):
        return None
    value = getattr(module, name, None)
    return value if isinstance(value, str) else None


def _path(node: ast.expr) -> str:
    """``a.b.c`` of names and attributes; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _path(node.value)
        return f"{before}.{node.attr}" if before else f".{node.attr}"
    return ""


def _locals(node: Function) -> dict[str, ast.expr | None]:
    """Local names: the expression where there is exactly one, None for arguments and what is assigned more than once."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names: dict[str, ast.expr | None] = {one.arg: None for one in every if one is not None}
    stored: dict[str, int] = {}
    values: dict[str, ast.expr] = {}
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            stored[child.id] = stored.get(child.id, 0) + 1
        else:
            values.update(assigned(child))
    names.update({name: values.get(name) if times == 1 else None for name, times in stored.items()})
    return names


def _annotated(node: Function) -> dict[str, str]:
    """Arguments to the one plain type of their annotation, None apart; "" where it says nothing."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return {one.arg: _plain_type(one.annotation) for one in every}


def _plain_type(annotation: ast.expr | None) -> str:
    match annotation:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=name):
            return name
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _plain_type(left)
    return ""


def _is_whole_lines(value: _Value) -> bool:
    """Whether the lines of a text are the lines of the file: one triple-quoted string."""
    lines = sum(part.count("\n") for part in value.parts if isinstance(part, str))
    return value.node.end_lineno is not None and value.node.end_lineno - value.node.lineno == lines
