"""The fingerprint of a definition: equal as long as it makes the same rows from the same log.

It covers the columns and key, the code of every fold with the project's own functions and constants that the code uses,
and the shape of the events. Comments, formatting, docstrings, annotations and the Python version change nothing: the
walk takes only non-empty fields of the syntax tree, in the order of their names.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from position_ledger.domain.event import Event
from position_ledger.errors import ConfigurationError
from position_ledger.projection.definition import Projection

_IGNORED_FIELDS = {"lineno", "col_offset", "end_lineno", "end_col_offset", "type_comment", "ctx", "kind", "type_params"}
_ANNOTATION_FIELDS = {"annotation", "returns"}
_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
_ENGINE = __name__.partition(".")[0]


@lru_cache(maxsize=256)
def fingerprint_of(projection: Projection[Any]) -> str:
    """32 hexadecimal digits over the definition.

    Raises:
        ConfigurationError: the source of a fold cannot be read, so nobody could tell whether it changed.
    """
    parts = [projection.table, projection.key_column, *projection.row.__struct_fields__]
    parts += _code(projection.key, set())
    for event, fold in sorted(projection.folds.items(), key=lambda item: item[0].TOPIC):
        parts += [event.TOPIC, str(event.VERSION), *_shape(event), *_code(fold, set())]
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]


def _shape(event: type[Event]) -> list[str]:
    """Names of the event's fields and the code of its upcasters."""
    shape = sorted(event.model_fields)
    for version, upcaster in sorted(event.UPCASTERS.items()):
        shape += [str(version), *_code(upcaster, set())]
    return shape


def _code(function: Any, seen: set[str]) -> list[str]:
    """The canonical code of a function and of the own functions and constants it names, depth first."""
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        msg = f"fold {function!r} must be a plain function, so that a change of its code can be told"
        raise ConfigurationError(msg)
    name = f"{function.__module__}.{function.__qualname__}"
    if name in seen:
        return []
    seen.add(name)
    tree = _tree(function)
    parts = [canonical(tree)]
    for used in sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}):
        parts += _used(used, _lookup(function, used), seen)
    return parts


def _tree(function: FunctionType) -> ast.AST:
    try:
        source = textwrap.dedent(inspect.getsource(function))
        return ast.parse(source)
    except (OSError, SyntaxError) as error:
        msg = f"the source of {function.__qualname__} cannot be read, so a change of it could not be told: {error}"
        raise ConfigurationError(msg) from error


def _lookup(function: FunctionType, name: str) -> Any:
    closure = inspect.getclosurevars(function)
    return closure.nonlocals.get(name, function.__globals__.get(name))


def _used(name: str, value: Any, seen: set[str]) -> list[str]:
    if isinstance(value, FunctionType) and _is_own(value):
        return [name, *_code(value, seen)]
    if isinstance(value, Enum):
        return [name, f"{type(value).__name__}.{value.name}"]
    if isinstance(value, (str, int, float, bytes, frozenset, tuple)):
        return [name, repr(sorted(value, key=repr)) if isinstance(value, frozenset) else repr(value)]
    return []


def _is_own(function: FunctionType) -> bool:
    """Whether a function belongs to the team's definitions, not to Python, a library or the engine."""
    module = sys.modules.get(function.__module__)
    top = function.__module__.split(".")
    if top[0] == _ENGINE and "reference" not in top:
        return False
    file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
    if file is None:
        return False
    path = Path(file).resolve()
    return "reference" in top or not any(path.is_relative_to(library) for library in _LIBRARIES)


def canonical(tree: ast.AST) -> str:
    """The tree as text: node names and non-empty fields, without positions, docstrings and annotations."""
    return "".join(_walk(tree))


def _walk(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _walk(child)
    elif isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name in sorted(node._fields):
            value = _without_docstring(node) if name == "body" else getattr(node, name, None)
            if name in _IGNORED_FIELDS or name in _ANNOTATION_FIELDS or value in (None, []):
                continue
            yield f" {name}="
            yield from _walk(value)
        yield ")"
    else:
        yield repr(node)


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
