"""The fingerprint: the same as long as the same log makes the same rows, another one as soon as it might not."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from position_ledger.errors import ConfigurationError
from position_ledger.events import PositionOpened
from position_ledger.projection import fingerprint
from position_ledger.projection.definition import load_projections
from position_ledger.projection.fingerprint import canonical, fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Callable

SHARES = """
from decimal import Decimal
HALF = Decimal("0.5")
def halved(price):
    return price * HALF
"""
DEFINITION = """
from __future__ import annotations
import logging
from decimal import Decimal
from enum import Enum
import own_shares as shares
from position_ledger import Projection, Recorded, Row, replace
from position_ledger.events import PositionClosed, PositionMarked, PositionOpened

LIMIT = Decimal("0.10")
NAMES = {"a": 1, "b": [2, 3]}
log = logging.getLogger(__name__)

class Kind(Enum):
    LOW = 1
    HIGH = 2

class Ratio:
    def of(self, price):
        return price / 2

class MarkRow(Row, frozen=True, gc=False):
    price: Decimal
    note: str = "none"

def clipped(price):
    return max(price, LIMIT)

def opened(row, event):
    log.debug("opened")
    return MarkRow(price=event.body.figures.entry_price)

def marked(row, event: Recorded[PositionMarked]):
    # a comment
    price = clipped(event.body.price) + shares.halved(event.body.price) + Ratio().of(NAMES["a"])
    return replace(row, price=price, note=Kind.LOW.name)

def key(event):
    return f"POS-{event.opened_seq}"

MARKS = Projection(
    table="marks", key_column="mark_id", key=key, row=MarkRow, folds={PositionOpened: opened, PositionMarked: marked}
)
"""


@pytest.fixture
def of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The fingerprint of the definition above with some of its text replaced, as if imported by a new process."""
    monkeypatch.syspath_prepend(str(tmp_path))
    runs = iter(range(100))

    def run(*changes: tuple[str, str]) -> str:
        texts = {"own_shares": SHARES, "own_marks": DEFINITION}
        for old, new in changes:
            assert any(old in text for text in texts.values()), old
            texts = {name: text.replace(old, new) for name, text in texts.items()}
        folder = tmp_path / f"run{next(runs)}"
        folder.mkdir()
        for name, text in texts.items():
            path = folder / f"{name}.py"
            path.write_text(text)
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        return fingerprint_of(module.MARKS)

    return run


@pytest.mark.parametrize(
    "change",
    [
        ("# a comment", "# another comment, longer"),
        ("def clipped(price):\n", 'def clipped(price):\n    """Keep it above the limit."""\n'),
        ("return max(price, LIMIT)", "return max(\n        price,\n        LIMIT,\n    )"),
        ("def clipped(price):", "def clipped(price: Decimal) -> Decimal:"),
        ("    price = clipped", "    price: Decimal = clipped"),
        ("event: Recorded[PositionMarked]", "event"),
        ("PositionOpened: opened, PositionMarked: marked", "PositionMarked: marked, PositionOpened: opened"),
        ('{"a": 1, "b": [2, 3]}', '{"b": [2, 3], "a": 1}'),
        ("LIMIT = Decimal", "UNUSED = 7\nLIMIT = Decimal"),
    ],
    ids=["comment", "docstring", "layout", "annotation", "local annotation", "no annotation", "order of folds",
         "order of a dict", "what no fold uses"],
)  # fmt: skip
def test_what_makes_the_same_rows_keeps_the_fingerprint(of: Callable[..., str], change: tuple[str, str]) -> None:
    assert of(change) == of()


@pytest.mark.parametrize(
    "change",
    [
        ("max(price, LIMIT)", "min(price, LIMIT)"),
        ("+ shares", "- shares"),
        ('LIMIT = Decimal("0.10")', 'LIMIT = Decimal("0.11")'),
        ('"b": [2, 3]', '"b": [2, 4]'),
        ("price * HALF", "price * HALF * HALF"),
        ('HALF = Decimal("0.5")', 'HALF = Decimal("0.25")'),
        ("return price / 2", "return price / 3"),
        ("LOW = 1", "LOW = 7"),
        ("Kind.LOW.name", "Kind.HIGH.name"),
        ('note: str = "none"', 'note: str = "nothing"'),
        ("    note: str", "    memo: int = 1\n    note: str"),
        ('table="marks"', 'table="prices"'),
        ('key_column="mark_id"', 'key_column="price_id"'),
        ("POS-{event", "POS-0{event"),
        ("PositionOpened: opened, PositionMarked: marked", "PositionOpened: opened"),
    ],
    ids=["called function", "operator", "constant", "constant inside a dict", "function of another module",
         "constant of another module", "method of an own class", "value of an enumeration", "member that is used",
         "default of a column", "column", "table", "key column", "key", "folds"],
)  # fmt: skip
def test_what_may_make_other_rows_changes_it(of: Callable[..., str], change: tuple[str, str]) -> None:
    assert of(change) != of()


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (("LIMIT = Decimal", "class Box: pass\nLIMIT = Box()\nX = Decimal"), r"clipped uses LIMIT, a Box"),
        (("key=key", "key=print"), "must be a plain function"),
        (("folds={", "folds={PositionClosed:\n lambda row, event: row,"), "the source of <lambda> cannot be read"),
    ],
    ids=["a global whose value cannot be told", "no function of its own", "a lambda inside a call"],
)
def test_what_could_change_unseen_is_refused(of: Callable[..., str], change: tuple[str, str], refusal: str) -> None:
    with pytest.raises(ConfigurationError, match=refusal):
        of(change)


def test_the_shape_of_events_counts(of: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a fingerprint, when an event gets a version with an upcaster, or a nested field, then it is another one
    before = of()
    real = fingerprint.field_paths
    monkeypatch.setattr(fingerprint, "field_paths", lambda model, prefix="": [*real(model, prefix), "figures.new"])
    assert of() != before


def test_nested_fields_are_part_of_the_shape() -> None:
    paths = set(fingerprint.field_paths(PositionOpened))
    assert {"account", "figures.quantity", "fill.is_dust_left"} <= paths


def test_both_names_of_the_shipped_projections_have_one_fingerprint() -> None:
    one, other = (load_projections(name)[0] for name in ("position_ledger.reference.projections", "projections"))
    assert one is not other
    assert fingerprint_of(one) == fingerprint_of(other)


CANONICAL = """
import ast, hashlib, sys
from importlib.util import spec_from_file_location
source = open(sys.argv[1]).read()
start = source.index("_IGNORED_FIELDS =")
namespace = {"ast": ast}
exec("from __future__ import annotations\\nfrom collections.abc import Iterator\\nfrom typing import Any\\n"
     + source[start:source.index("_PLAIN =")] + source[source.index("def canonical("):], namespace)
print(hashlib.sha256(namespace["canonical"](ast.parse(open(sys.argv[2]).read())).encode()).hexdigest())
"""


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_every_supported_python_gives_the_same_text(version: str, tmp_path: Path) -> None:
    # Given a file with everything that the grammars of the versions write differently in their trees
    source = tmp_path / "code.py"
    source.write_text(EVERYTHING)
    home = Path(sys.executable).resolve().parents[2]
    found = [*home.glob(f"{version}*/bin/python"), *Path("/usr/bin").glob(f"python{version}")]
    if not found:
        pytest.skip(f"no Python {version} here")
    # When another Python writes its tree
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(
        [str(found[0]), "-c", CANONICAL, fingerprint.__file__, str(source)],
        capture_output=True, text=True, check=True, timeout=30, env=environment,
    )  # fmt: skip
    # Then it is the same text as ours
    ours = hashlib.sha256(canonical(ast.parse(EVERYTHING)).encode()).hexdigest()
    assert done.stdout.strip() == ours


EVERYTHING = textwrap.dedent('''
    """Module."""
    class Own(Base, metaclass=Meta):
        """Doc."""
        field: int = 3
        other: str
        @property
        def text(self) -> str:
            return f"{self.field!r:>{4}} and {'nested'}" "joined" f"{1 + 1}"
    async def run(a, /, b: int = 1, *rest, c=None, **more) -> None:
        """Doc."""
        async with a as x, b:
            await x
        async for y in z:
            yield y
    def fold(row, event):
        match event:
            case {"a": 1, **rest} if rest:
                return lambda q, *, w=2: q ** w
            case [1, *_] | Own(field=None):
                return {**row, "k": -1}
            case _:
                pass
        try:
            with open(row) as (f, g):
                del f[1:2, ::3]
        except* ValueError as error:
            raise KeyError from error
        finally:
            global later
            later = [x for x in row if x not in (1, 2.5, 3j, b"x", None, ...)]
        while (n := 3) > 2:
            continue
        else:
            assert n, "never"
        return not (1 < n <= 3) and n @ 2 if row else None
''')
