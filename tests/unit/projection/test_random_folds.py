"""Folds drawn at random make the same rows of amounts that are left as text where they are carried, and of decimals."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from position_ledger import Projection, Recorded
from position_ledger.events import EVENTS, PositionMarked
from position_ledger.projection.carrying.amounts import codec_of_load
from position_ledger.projection.scd2 import fold_batch
from position_ledger.settings import load_settings
from position_ledger.store.codec import Codec
from tests.support.marking import carried, projection

AT = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = load_settings()
AMOUNTS = ("event.body.price", "event.body.unrealized_pnl", "event.body.unrealized_pnl_pct")
leaves = st.sampled_from([*AMOUNTS, "price", "before.price", "before.pnl"])
carrying_forms = st.one_of(
    leaves,
    st.tuples(leaves, leaves).map("kept({0[0]}, {0[1]})".format),
    st.tuples(leaves, leaves).map("({0[0]} if {0[1]} is None else {0[1]})".format),
)
asking_forms = st.one_of(
    st.tuples(leaves, leaves).map("({0[0]} or {0[1]})".format),
    leaves.map("({0} and LIMIT)".format),
)
using_forms = st.one_of(
    leaves.map("(LIMIT if {0} else None)".format),
    leaves.map("(not {0})".format),
    st.tuples(leaves, leaves).map("({0[0]} == {0[1]})".format),
    leaves.map("({0} in (LIMIT, ONE))".format),
    st.tuples(leaves, leaves).map("less({0[0]}, {0[1]})".format),
    leaves.map("str(less({0}, None))".format),
    leaves.map("{{'a': {0}}}['a'] == ONE".format),
    leaves.map("[one == ONE for one in [{0}]][0]".format),
)
"""One of these in a fold, so that the other amounts of it are carried."""


@dataclass(frozen=True)
class Program:
    """A fold, as its source."""

    price: str
    pnl: str
    note: str
    condition: str
    spread: bool

    def __str__(self) -> str:
        made = f"**{{'pnl': {self.pnl}, 'note': {self.note}}}" if self.spread else f"pnl={self.pnl}, note={self.note}"
        return f"""
from decimal import Decimal
from position_ledger import replace
from tests.support.marking import EMPTY, LIMIT, MarkRow

ONE = Decimal(1)

def kept(given, before):
    return before if given is None else given

def less(one, other):
    return (one if one is not None else LIMIT) - (LIMIT if other is None else other)

def fold(row, event):
    before = EMPTY if row is None else row
    price = event.body.price
    if {self.condition}:
        price = {self.price}
    return replace(before, price=kept(price, LIMIT), {made})
"""


columns_of_row = (carrying_forms, carrying_forms)
programs = st.one_of(
    st.builds(Program, *columns_of_row, using_forms, st.just("before.note is None"), st.booleans()),
    st.builds(Program, *columns_of_row, st.just("'a word'"), using_forms, st.booleans()),
    st.builds(Program, carrying_forms, asking_forms, st.just("None"), st.just("event.body.source"), st.booleans()),
)
amounts = st.sampled_from(["0", "0.0", "1", "1.0", "1.00", "-0.5", "0.10", "1E+2", "100", "0.000000000000000001"])
marks = st.lists(st.tuples(amounts, amounts, st.none() | amounts), min_size=1, max_size=6)
numbers = itertools.count()


def test_a_program_uses_only_what_it_calculates_with(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Else the next test would compare decimals with decimals."""
    program = Program(
        "event.body.price", "event.body.unrealized_pnl", "str(less(price, None))", "row is None", spread=True
    )
    assert carried(_module(tmp_path_factory, str(program)).fold) == {"unrealized_pnl"}


@settings(max_examples=300)
@given(program=programs, given_marks=marks)
def test_a_random_fold_makes_the_same_rows_of_texts(
    tmp_path_factory: pytest.TempPathFactory, program: Program, given_marks: list[Any]
) -> None:
    """One that would not has a definition that calculates with a text, or asks one, as if it were its decimal."""
    definition = projection(_module(tmp_path_factory, str(program)).fold)
    states = [
        Codec(EVENTS).encode(
            PositionMarked(price=Decimal(price), unrealized_pnl=Decimal(pnl), unrealized_pnl_pct=pct and Decimal(pct))
        )
        for price, pnl, pct in given_marks
    ]
    carrying, exact = (
        _rows(definition, codec, states) for codec in (codec_of_load(definition, SETTINGS), Codec(EVENTS))
    )
    assert carrying == exact


def _rows(definition: Projection[Any], codec: Codec, states: list[bytes]) -> list[Any]:
    """The columns as a load writes them."""
    events = [
        Recorded(
            number, UUID(int=1), number, "position.marked", codec.decode_struct("position.marked", state), AT, AT, 1
        )
        for number, state in enumerate(states, 1)
    ]
    made = fold_batch(definition, events, {}).inserted
    return [msgspec.to_builtins(version.row) for version in made]


def test_calls_are_not_followed_without_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Eighteen functions of which each calls the next twice are a quarter of a million calls."""
    last = "def call_18(row, event):\n    return MarkRow(price=event.body.price, pnl=None)\n"
    calls = "".join(
        f"def call_{n}(row, event):\n    return call_{n + 1}(row, event) or call_{n + 1}(row, event)\n"
        for n in range(18)
    )
    source = f"from tests.support.marking import MarkRow\n{calls}{last}"
    assert carried(_module(tmp_path_factory, source).call_17) == {"price", "unrealized_pnl"}
    assert carried(_module(tmp_path_factory, source).call_0) == set()


def _module(folders: pytest.TempPathFactory, source: str) -> Any:
    path = Path(folders.getbasetemp()) / f"random_fold_{next(numbers)}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module
