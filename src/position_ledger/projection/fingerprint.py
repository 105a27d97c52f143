"""The fingerprint of a definition: equal as long as it makes the same rows from the same log.

It covers the columns and key, the code of every fold with the project's own functions and constants that the code uses,
and the shape of the events. Comments, formatting, docstrings, annotations and the Python version change nothing: the
walk takes only non-empty fields of the syntax tree, in the order of their names.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import re
import sys
import sysconfig
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as dataclass_fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, get_args
from uuid import UUID

import msgspec
from pydantic import BaseModel

from position_ledger.domain.event import Event
from position_ledger.errors import ConfigurationError
from position_ledger.projection.definition import Projection
from position_ledger.projection.source import names_of, source_tree

_IGNORED_FIELDS = {"lineno", "col_offset", "end_lineno", "end_col_offset", "type_comment", "ctx", "kind", "type_params"}
_ANNOTATION_FIELDS = {"annotation", "returns"}
_PLAIN = (str, int, float, complex, bytes, Decimal, date, time, datetime, timedelta, UUID)
_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
_ENGINE = __name__.partition(".")[0]


@lru_cache(maxsize=256)
def fingerprint_of(projection: Projection[Any]) -> str:
    """32 hexadecimal digits over the definition.

    Raises:
        ConfigurationError: the source of a fold cannot be read, or it uses a value whose changes could not be told.
    """
    parts = [projection.table, projection.key_column, *projection.row.__struct_fields__]
    parts += [_constant(projection.table, default) for default in projection.row.__struct_defaults__]
    parts += _code(projection.key, _Walk.of(projection.key))
    for event, fold in sorted(projection.folds.items(), key=lambda item: item[0].TOPIC):
        parts += [event.TOPIC, str(event.VERSION), *_shape(event), *_code(fold, _Walk.of(fold))]
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]


@lru_cache(maxsize=256)
def parts_of(projection: Projection[Any]) -> Mapping[str, Any]:
    """What the fingerprint is made of, each part apart and fit for JSON, so that a difference can be named.

    ``key`` is a digest, ``defaults`` has the fields of the row type that have one, as text, ``folds`` a digest of the
    code for each topic, ``events`` version and digest of the shape for each topic. Raises as `fingerprint_of`.
    """
    fields, defaults = projection.row.__struct_fields__, projection.row.__struct_defaults__
    given = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
    folds = {event.TOPIC: _code(fold, _Walk.of(fold)) for event, fold in projection.folds.items()}
    return {
        "key": _digest([projection.key_column, *_code(projection.key, _Walk.of(projection.key))]),
        "defaults": {name: _constant(name, value) for name, value in given.items() if value is not msgspec.NODEFAULT},
        "folds": {topic: _digest(folds[topic]) for topic in sorted(folds)},
        "events": {event.TOPIC: [event.VERSION, _digest(_shape(event))] for event in projection.folds},
    }


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]


def _shape(event: type[Event]) -> list[str]:
    """Names of the event's fields, nested ones by their path, and the code of its upcasters."""
    shape = sorted(field_paths(event))
    for version, upcaster in sorted(event.UPCASTERS.items()):
        shape += [str(version), *_code(upcaster, _Walk.of(upcaster))]
    return shape


@dataclass(frozen=True, slots=True)
class _Walk:
    """One fold on its way: the package that it is from, which is the team's wherever it is installed, and what was met."""

    home: str
    seen: set[str]

    @classmethod
    def of(cls, code: Any) -> _Walk:
        return cls(str(getattr(code, "__module__", "")).partition(".")[0], set())


def field_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every field of a model and of the models inside it, as dotted paths."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from field_paths(part, f"{prefix}{name}.")


def _code(code: Any, walk: _Walk) -> list[str]:
    """The canonical code of a function or class and of everything of the project's own that it names, depth first."""
    if not isinstance(code, type):
        code = inspect.unwrap(code)
        if not isinstance(code, FunctionType):
            msg = f"fold {code!r} must be a plain function, so that a change of its code can be told"
            raise ConfigurationError(msg)
    name = f"{code.__module__}.{code.__qualname__}"
    if name in walk.seen:
        return []
    walk.seen.add(name)
    tree = source_tree(code)
    parts = [canonical(tree)]
    for used, value in sorted(_used(tree, names_of(code)).items()):
        parts += [used, *_of_value(f"{code.__qualname__} uses {used}", value, walk)]
    return parts


def _used(tree: ast.AST, names: dict[str, Any]) -> dict[str, Any]:
    """What the code names, by its dotted name: ``figures`` and, through modules, ``helpers.figures``."""
    used: dict[str, Any] = {}
    for node in _code_nodes(tree):
        path: list[str] = []
        while isinstance(node, ast.Attribute):
            path.insert(0, node.attr)
            node = node.value  # noqa: PLW2901 - walks down to the name
        if not isinstance(node, ast.Name) or node.id not in names:
            continue
        value, dotted = names[node.id], node.id
        while isinstance(value, ModuleType) and path and hasattr(value, path[0]):
            dotted = f"{dotted}.{path[0]}"
            value = getattr(value, path.pop(0))
        used[dotted] = value
    return used


def _code_nodes(tree: ast.AST) -> Iterator[Any]:
    """Every node that is run: annotations are not."""
    yield tree
    for name in tree._fields:
        if name in _ANNOTATION_FIELDS:
            continue
        value = getattr(tree, name, None)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _code_nodes(child)


def _of_value(where: str, value: Any, walk: _Walk) -> list[str]:
    """What a named value adds to the fingerprint: own code in full, constants by value, the rest of the world nothing."""
    if isinstance(value, Enum):
        return [_constant(where, value)]
    code = inspect.unwrap(value) if callable(value) and not isinstance(value, type) else value
    if isinstance(code, (FunctionType, type)):
        return _code(code, walk) if _is_own(code, walk.home) else []
    if isinstance(code, (ModuleType, logging.Logger, typing.TypeVar)) or _is_foreign(code, walk.home):
        return []
    return [_constant(where, code)]


def _is_foreign(value: Any, home: str) -> bool:
    """Whether it is something callable or special of Python or a library: changed by an update, not by the team."""
    return isinstance(value, (BuiltinFunctionType, types.GenericAlias, types.UnionType)) or (
        callable(value) and not _is_own(type(value), home)
    )


def _constant(where: str, value: Any) -> str:
    """A constant as text that is equal for equal values.

    Raises:
        ConfigurationError: its changes could not be told.
    """
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or value is msgspec.NODEFAULT or isinstance(value, (*_PLAIN, re.Pattern)):
        return repr(value)
    return "(" + ",".join(_parts(where, value)) + ")"


def _parts(where: str, value: Any) -> list[str]:
    inside = partial(_constant, where)
    if isinstance(value, Mapping):
        return sorted(f"{inside(key)}:{inside(one)}" for key, one in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(map(inside, value))
    if isinstance(value, (list, tuple)):
        return [inside(one) for one in value]
    if isinstance(value, msgspec.Struct):
        return [type(value).__name__, *(inside(getattr(value, name)) for name in value.__struct_fields__)]
    if isinstance(value, BaseModel):
        return [type(value).__name__, *(inside(getattr(value, name)) for name in type(value).model_fields)]
    if is_dataclass(value):
        return [type(value).__name__, *(inside(getattr(value, field.name)) for field in dataclass_fields(value))]
    msg = (
        f"{where}, a {type(value).__qualname__}, and a change of it could not be told: use a plain constant or a function "
        "instead"
    )
    raise ConfigurationError(msg)


def _is_own(code: FunctionType | type, home: str) -> bool:
    """Whether a function or class belongs to the team's definitions, not to Python, a library or the engine."""
    module = sys.modules.get(code.__module__)
    top = code.__module__.split(".")
    if top[0] == _ENGINE:
        return "reference" in top
    file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
    if file is None:
        return False
    return top[0] == home or not any(Path(file).resolve().is_relative_to(library) for library in _LIBRARIES)


def canonical(tree: ast.AST) -> str:
    """The tree as text: node names and non-empty fields, without positions, docstrings and annotations."""
    return "".join(_walk(tree))


def _walk(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _walk(child)
    elif isinstance(node, ast.AnnAssign):
        if node.value is not None:
            yield from _walk(ast.Assign(targets=[node.target], value=node.value))
    elif isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name in sorted(node._fields):
            value = _field(node, name)
            if name in _IGNORED_FIELDS or name in _ANNOTATION_FIELDS or value in (None, []):
                continue
            yield f" {name}="
            yield from _walk(value)
        yield ")"
    else:
        yield repr(node)


def _field(node: ast.AST, name: str) -> Any:
    if name == "body":
        return _without_docstring(node)
    if isinstance(node, ast.JoinedStr):
        # Python 3.12 leaves empty texts in a format, the others do not.
        return [one for one in node.values if not (isinstance(one, ast.Constant) and one.value == "")]
    return getattr(node, name, None)


def _without_docstring(node: ast.AST) -> Any:
    body = node.body  # type: ignore[attr-defined]
    if (
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and body
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        return body[1:]
    return body
