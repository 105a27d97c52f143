"""The source of a definition's functions as syntax trees, and what the names in it stand for."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from functools import lru_cache
from types import FunctionType
from typing import Any

from position_ledger.errors import ConfigurationError


@lru_cache(maxsize=1024)
def source_tree(code: FunctionType | type) -> ast.Module:
    """The tree of a function or class; it is shared, so that nobody may change it.

    Raises:
        ConfigurationError: the source cannot be read.
    """
    try:
        source = textwrap.dedent(inspect.getsource(code))
        return ast.parse(source)
    except (OSError, SyntaxError) as error:
        msg = f"the source of {code.__qualname__} cannot be read, so a change of it could not be told: {error}"
        raise ConfigurationError(msg) from error


def names_of(code: FunctionType | type) -> dict[str, Any]:
    """What the global and enclosing names in a function or class stand for."""
    if isinstance(code, type):
        names = dict(vars(sys.modules[code.__module__]))
        for method in vars(code).values():
            if isinstance(method, FunctionType):
                names.update(inspect.getclosurevars(method).nonlocals)
        return names
    return {**code.__globals__, **inspect.getclosurevars(code).nonlocals}
