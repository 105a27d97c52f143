"""Fields of a row type and columns of its table: each way in which they do not fit is named, with the line of the field."""

from __future__ import annotations

import inspect
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pytest

from position_ledger import Projection, Row
from position_ledger.checking.row_types import row_type_mismatches
from position_ledger.events import PositionMarked
from position_ledger.migration.catalogue import Column, Table

Ticker = NewType("Ticker", str)


class Side(StrEnum):
    YES = "YES"


class Rank(IntEnum):
    FIRST = 1


class Strange(Enum):
    IT = object()


class Places(Row, frozen=True, gc=False):
    name: str
    amount: Decimal
    at: datetime | None
    notes: Any


def column(name: str, kind: str, *, not_null: bool) -> Column:
    return Column(name, kind, not_null, None, "", "", "", None, None, "", None, None, (), ())


def table(**columns: tuple[str, bool]) -> Table:
    engine = {
        "id": ("bigint", True),
        "place_id": ("text", True),
        "row_current_ind": ("boolean", True),
        "row_effective_date": ("timestamp with time zone", True),
        "row_expiration_date": ("timestamp with time zone", False),
        "version": ("integer", True),
        "effective_at": ("timestamp with time zone", True),
    }
    every = {name: column(name, kind, not_null=fixed) for name, (kind, fixed) in {**engine, **columns}.items()}
    return Table("places", every, {}, {}, {}, {}, None, (), (), (), "owner")


def projection(row: type[Row]) -> Projection[Any]:
    return Projection("places", "place_id", lambda _event: "", row, {PositionMarked: lambda row, _event: row})


GOOD: dict[str, tuple[str, bool]] = {
    "name": ("character varying(20)", True),
    "amount": ("numeric(38,18)", True),
    "at": ("timestamp with time zone", False),
    "notes": ("jsonb", True),
}


def test_a_table_that_fits_has_no_mismatch() -> None:
    assert row_type_mismatches(projection(Places), table(**GOOD)) == []


@pytest.mark.parametrize(
    ("field", "kind", "not_null", "words"),
    [
        ("name", "text", False, "Places.name is str and column places.name may be NULL: make the column NOT NULL"),
        ("at", "timestamp with time zone", True, "Places.at is datetime | None and column places.at is NOT NULL"),
        ("name", "integer", True, "is str and column places.name is integer: it belongs into a column of type text"),
        (
            "amount",
            "text",
            True,
            "is Decimal and column places.amount is text: it belongs into a column of type numeric",
        ),
        ("amount", "bigint", True, "of type numeric"),
        ("at", "timestamp without time zone", False, "of type timestamp with time zone"),
        ("name", "jsonb", True, "of type text"),
        ("notes", "text", True, "Any stands for jsonb"),
    ],
)
def test_a_column_of_another_type_or_nullability_is_named(field: str, kind: str, *, not_null: bool, words: str) -> None:
    (found,) = row_type_mismatches(projection(Places), table(**{**GOOD, field: (kind, not_null)}))

    lines, first = inspect.getsourcelines(Places)
    place = next(number for number, line in enumerate(lines, first) if line.strip().startswith(f"{field}:"))
    assert words in str(found)
    assert found.place is not None
    assert (found.place.file.name, found.place.line) == ("test_row_types.py", place)


def test_a_missing_column_and_a_missing_field_are_named() -> None:
    columns = {name: kind for name, kind in GOOD.items() if name != "amount"}

    first, second = row_type_mismatches(projection(Places), table(**columns, colour=("text", False)))

    assert "table places has no column amount: add it in a migration" in first.sentence
    assert "row type Places has no field for column colour of table places" in second.sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ("integer", False)}, "Places.id is int and column places.id may be NULL"),
        ({"place_id": ("bigint", True)}, "Places.place_id is str and column places.place_id is bigint"),
        ({"row_expiration_date": ("timestamp with time zone", True)}, "row_expiration_date is NOT NULL"),
    ],
)
def test_the_columns_of_the_engine_are_compared_too(change: dict[str, tuple[str, bool]], words: str) -> None:
    (found,) = row_type_mismatches(projection(Places), table(**{**GOOD, **change}))
    assert words in found.sentence


@pytest.mark.parametrize(
    ("annotation", "kind", "fits"),
    [
        (bool, "boolean", True),
        (int, "bigint", True),
        (int, "text", False),
        (float, "double precision", True),
        (float, "numeric", False),
        (bytes, "bytea", True),
        (date, "date", True),
        (date, "timestamp with time zone", False),
        (UUID, "uuid", True),
        (Side, "text", True),
        (Rank, "smallint", True),
        (Strange, "text", False),
        (Ticker, "text", True),
        (Literal["a", "b"], "text", True),
        (Annotated[int, "units"], "integer", True),
        (int | str, "text", False),
        (list[str], "jsonb", True),
        (dict[str, int], "text", False),
        (str, "integer[]", False),
    ],
)
def test_types_of_values_and_columns(annotation: Any, kind: str, *, fits: bool) -> None:
    row = type("Made", (Row,), {"__annotations__": {"it": annotation}}, frozen=True, gc=False)
    found = row_type_mismatches(projection(row), table(it=(kind, True)))
    assert (found == []) is fits
