"""Small parts of the engine: ranges of shards, references inside events, structs of models."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from position_ledger.domain.events import StreamRef
from position_ledger.errors import ConfigurationError
from position_ledger.events import PositionOpened
from position_ledger.projection.definition import load_projections
from position_ledger.projection.generations import column_gap, shard_ranges
from position_ledger.projection.leases import Lease, merged_ranges
from position_ledger.projection.references import reference_paths
from position_ledger.store.codec import struct_of

RANGES = shard_ranges(16)


@given(held=st.sets(st.integers(0, 15)), stream=st.uuids())
def test_merged_ranges_hold_exactly_the_streams_of_the_shards(held: set[int], stream: UUID) -> None:
    leases = [Lease(1, shard, low, high, 0, 0) for shard, low, high in RANGES if shard in held]
    merged = merged_ranges(leases)
    for one in (stream, *(low for _, low, _ in RANGES), *(high for _, _, high in RANGES)):
        inside = sum(low <= one <= high for low, high in merged)
        assert inside == (one.int // 2**124 in held)


def test_all_shards_are_one_range() -> None:
    leases = [Lease(1, shard, low, high, 0, 0) for shard, low, high in reversed(RANGES)]
    assert merged_ranges(leases) == [(UUID(int=0), UUID(int=2**128 - 1))]


def test_references_are_found_wherever_they_are() -> None:
    class Inner(BaseModel):
        link: StreamRef | None = None

    class Outer(BaseModel):
        first: StreamRef
        inner: Inner
        maybe: Inner | None = None
        number: int = 0

    assert reference_paths(Outer) == (("first",), ("inner", "link"), ("maybe", "link"))
    assert ("previous",) in reference_paths(PositionOpened)


def test_a_struct_reads_what_its_model_writes() -> None:
    class Part(BaseModel):
        amount: Decimal
        tags: tuple[str, ...] = ()

    class Whole(BaseModel):
        part: Part
        other: Part | None = None
        by_name: dict[str, int] = {}
        stream: UUID

    whole = Whole(part=Part(amount=Decimal("0.10"), tags=("a",)), stream=uuid4())
    read = msgspec.json.decode(whole.model_dump_json(exclude_defaults=True), type=struct_of(Whole))
    assert (read.part.amount, read.part.tags, read.other, read.by_name, read.stream) == (
        Decimal("0.10"), ("a",), None, {}, whole.stream,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "table", "words"),
    [
        (["a", "b"], ["b", "a"], ""),
        (["a", "b"], ["a"], "; the table lacks b"),
        (["a"], ["a", "b", "c"], "; the row type lacks b, c"),
        (["a", "x"], ["a", "y"], "; the table lacks x; the row type lacks y"),
    ],
)
def test_the_gap_between_code_and_table_is_named(code: list[str], table: list[str], words: str) -> None:
    assert column_gap(code, table) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [("no_such_package", "cannot import 'no_such_package'"), ("position_ledger.domain", "defines no projection")],
)
def test_projections_that_cannot_be_loaded_are_refused_by_name(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_projections(name)


def test_the_team_of_the_demo_has_every_table_that_ships() -> None:
    """A release that left one out would stop projecting it."""
    shipped = load_projections("position_ledger.reference.projections")
    of_team = load_projections("position_ledger.demo.team.projections")
    assert [one.table for one in of_team] == [one.table for one in shipped]
    assert [one.table for one, other in zip(of_team, shipped, strict=True) if one is not other] == ["positions"]
