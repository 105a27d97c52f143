"""Positions and three tables more, small ones, for tests of what several tables that are fed from one log have in common.

``holdings`` hears of fills, ``valuations`` of marks, ``book_counts`` of another family of streams. A test that wants one
of them to fail says so with `failing`.
"""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from position_ledger import Projection, Recorded, Row, operations, replace
from position_ledger.events import (
    BookPositionClosed,
    BookPositionOpened,
    PositionClosed,
    PositionIncreased,
    PositionMarked,
    PositionOpened,
    PositionReduced,
    PositionSettled,
)
from position_ledger.reference.projections.positions import POSITIONS
from tests.support import engine
from tests.support.migration_files import migration_text
from tests.support.rebuilding import last_number, shipped_migrations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from position_ledger.settings import Settings

__all__ = ["BOOK_COUNTS", "HOLDINGS", "POSITIONS", "VALUATIONS"]

MODULE = "tests.support.many_tables"


class HoldingRow(Row, frozen=True, gc=False):
    """What is held, and how many fills made it."""

    execution_environment: str
    quantity: Decimal
    fills: int


class ValuationRow(Row, frozen=True, gc=False):
    """What it was last valued at, and how often it was."""

    price: Decimal
    marks: int


class BookCountRow(Row, frozen=True, gc=False):
    """How many positions a book has seen open and end."""

    opened: int
    ended: int


def key(event: Recorded[Any]) -> str:
    """The position, by the number of its first event."""
    return f"POS-{event.opened_seq}"


def book_key(event: Recorded[Any]) -> str:
    """The book, by the number of its first event."""
    return f"BOOK-{event.opened_seq}"


def held_first(_: HoldingRow | None, event: Recorded[Any]) -> HoldingRow:
    """Begin to hold."""
    return HoldingRow(event.body.environment, event.body.figures.quantity, 1)


def held(row: HoldingRow, event: Recorded[Any]) -> HoldingRow:
    """Hold more or less."""
    return replace(row, quantity=event.body.figures.quantity, fills=row.fills + 1)


def valued_first(_: ValuationRow | None, event: Recorded[Any]) -> ValuationRow:
    """Value at the entry."""
    return ValuationRow(event.body.fill.price, 0)


def valued(row: ValuationRow, event: Recorded[Any]) -> ValuationRow:
    """Value at a mark."""
    return replace(row, price=event.body.price, marks=row.marks + 1)


def book_opened(row: BookCountRow | None, _: Recorded[Any]) -> BookCountRow:
    """One more."""
    return BookCountRow(1, 0) if row is None else replace(row, opened=row.opened + 1)


def book_ended(row: BookCountRow, _: Recorded[Any]) -> BookCountRow:
    """One has ended."""
    return replace(row, ended=row.ended + 1)


HOLDINGS = Projection(
    table="holdings",
    key_column="holding_id",
    key=key,
    row=HoldingRow,
    folds={
        PositionOpened: held_first,
        PositionIncreased: held,
        PositionReduced: held,
        PositionClosed: held,
        PositionSettled: held,
    },
)
VALUATIONS = Projection(
    table="valuations",
    key_column="valuation_id",
    key=key,
    row=ValuationRow,
    folds={PositionOpened: valued_first, PositionMarked: valued},
)
BOOK_COUNTS = Projection(
    table="book_counts",
    key_column="book_id",
    key=book_key,
    row=BookCountRow,
    folds={BookPositionOpened: book_opened, BookPositionClosed: book_ended},
)
EXTRA = (BOOK_COUNTS, HOLDINGS, VALUATIONS)

COLUMNS = {
    "holdings": "execution_environment text NOT NULL, quantity numeric(38,18) NOT NULL, fills bigint NOT NULL",
    "valuations": "price numeric(38,18) NOT NULL, marks bigint NOT NULL",
    "book_counts": "opened bigint NOT NULL, ended bigint NOT NULL",
}


def create_table(projection: Projection[Any]) -> str:
    """The statements of a migration that make a table as those of the ledger are."""
    table, key_column = projection.table, projection.key_column
    return f"""
CREATE TABLE {table} (
    id bigint NOT NULL, {key_column} text NOT NULL, row_current_ind boolean NOT NULL,
    row_effective_date timestamptz NOT NULL, row_expiration_date timestamptz, version bigint NOT NULL,
    effective_at timestamptz NOT NULL, {COLUMNS[table]},
    CONSTRAINT {table}_pkey PRIMARY KEY (id),
    CONSTRAINT {table}_one_row_a_version UNIQUE ({key_column}, version),
    CONSTRAINT {table}_interval_not_empty CHECK (row_expiration_date > row_effective_date)
);
CREATE UNIQUE INDEX {table}_one_current_row ON {table} ({key_column}) WHERE row_current_ind;
CREATE INDEX {table}_known_at ON {table} ({key_column}, row_effective_date);
GRANT SELECT ON {table} TO position_ledger_reader, position_ledger_projector;
GRANT INSERT ON {table} TO position_ledger_projector;
GRANT UPDATE (row_current_ind, row_expiration_date) ON {table} TO position_ledger_projector;
"""


def many_settings(settings: Settings, folder: Path) -> Settings:
    """The settings of a release with these tables: one migration for each beside those that ship."""
    target, number = shipped_migrations(settings, folder), last_number(settings)
    for place, one in enumerate(EXTRA, number + 1):
        text = migration_text(place, create_table(one), rollback=f"DROP TABLE {one.table};")
        (target / f"{place:03}_{one.table}.sql").write_text(text)
    return settings.model_copy(update={"projections": MODULE, "migrations": str(target)})


def migrated(settings: Settings, folder: Path) -> Settings:
    """The same, brought about in the database of the settings."""
    many = many_settings(settings, folder)
    operations.migrate_up(many, engine.reached(many), None, engine.quiet)
    return many


@contextmanager
def failing(settings: Settings, table: str) -> Iterator[None]:
    """Make a table refuse every row in the block, as one does whose constraint its fold breaks."""
    with engine.connected(settings, as_app=False) as owner:
        owner.execute(f"ALTER TABLE {table} ADD CONSTRAINT poison CHECK (version < 0) NOT VALID".encode())
        try:
            yield
        finally:
            owner.execute(f"ALTER TABLE {table} DROP CONSTRAINT poison".encode())
