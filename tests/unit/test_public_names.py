from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import position_ledger
import position_ledger.testing

if TYPE_CHECKING:
    from types import ModuleType


@pytest.mark.parametrize("module", [position_ledger, position_ledger.testing])
def test_every_public_name_can_be_imported_and_nothing_else(module: ModuleType) -> None:
    homes = {name for names in vars(module)["_HOMES"].values() for name in _names(names)}
    assert homes == set(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(names.split()) if isinstance(names, str) else names


@pytest.mark.parametrize("module", [position_ledger, position_ledger.testing])
def test_type_checkers_see_each_name_where_it_is_imported_from(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: str(node.module) for node in imports for alias in node.names}
    for name in module.__all__:
        assert getattr(import_module(seen[name]), name) is getattr(module, name)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Positions'"):
        _ = position_ledger.Positions


def test_the_plugin_loads_nothing_heavy() -> None:
    heavy = ["pydantic", "psycopg", "eventsourcing", "msgspec", "redis", "dramatiq", "rich", "position_ledger.ledger"]
    code = f"import sys, position_ledger.testing; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
