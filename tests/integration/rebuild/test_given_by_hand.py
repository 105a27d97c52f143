"""What somebody said of a live table, as statements for the next one: over a catalogue that was read, and changed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.sql import Identifier

from position_ledger.migration.attached import Attached, Settled, attached_to
from position_ledger.migration.introspect import read_catalogue
from position_ledger.projection.generation_notes import drop_expired
from position_ledger.projection.given_by_hand import by_hand
from tests.support import engine

if TYPE_CHECKING:
    from position_ledger.migration.catalogue import Catalogue
    from position_ledger.settings import Settings

NAME = Identifier("ledger", "positions")


@pytest.fixture
def found(settings: Settings) -> tuple[Catalogue, Attached]:
    with engine.connected(settings, as_app=False) as connection:
        catalogue = read_catalogue(connection, "ledger")
        return catalogue, attached_to(connection, "ledger", "positions", catalogue.tables["positions"])


def said(catalogue: Catalogue, attached: Attached, after: Catalogue | None = None) -> list[str]:
    return [one.as_string(None) for one in by_hand(catalogue, after or catalogue, attached, NAME)]


def with_index(attached: Attached, name: str, **changed: Any) -> Attached:
    indexes = {**attached.live.indexes, name: replace(attached.live.indexes[name], **changed)}
    return replace(attached, live=replace(attached.live, indexes=indexes))


def test_a_table_of_which_nothing_was_said_gets_nothing(found: tuple[Catalogue, Attached]) -> None:
    catalogue, attached = found
    assert said(catalogue, attached) == []
    assert said(catalogue, attached, replace(catalogue, tables={})) == []


def test_indexes_keep_what_was_said_of_them_if_the_new_table_has_them(found: tuple[Catalogue, Attached]) -> None:
    catalogue, attached = found
    about = {"options": ("fillfactor=70",), "comment": "by number", "statistics_targets": ((1, 500),)}
    changed = with_index(attached, "positions_pkey", **about)
    assert said(catalogue, changed) == [
        'ALTER INDEX "positions_pkey" SET (fillfactor=70)',
        'ALTER INDEX "positions_pkey" ALTER COLUMN 1 SET STATISTICS 500',
        "COMMENT ON INDEX \"positions_pkey\" IS 'by number'",
    ]
    table = catalogue.tables["positions"]
    fewer = replace(table, indexes={name: one for name, one in table.indexes.items() if name != "positions_pkey"})
    assert said(catalogue, changed, replace(catalogue, tables={**catalogue.tables, "positions": fewer})) == []


@pytest.mark.parametrize(
    ("settled", "statement"),
    [
        (Settled("f", None, None), "REPLICA IDENTITY FULL"),
        (Settled("n", None, None), "REPLICA IDENTITY NOTHING"),
        (Settled("i", "positions_pkey", None), 'REPLICA IDENTITY USING INDEX "positions_pkey"'),
        (Settled("d", None, "positions_known_at"), 'CLUSTER ON "positions_known_at"'),
    ],
)
def test_the_identity_for_replicas_and_the_order_of_rows_go_along(
    found: tuple[Catalogue, Attached], settled: Settled, statement: str
) -> None:
    catalogue, attached = found
    assert said(catalogue, replace(attached, settled=settled)) == [f'ALTER TABLE "ledger"."positions" {statement}']


def test_a_ledger_that_knows_no_times_of_retirement_drops_nothing(settings: Settings) -> None:
    """A database to which migration 015 has not come yet, in which a newer worker looks for what is over."""
    with engine.connected(settings, as_app=False) as connection:
        connection.execute("ALTER FUNCTION drop_expired_generations() RENAME TO not_yet")
        assert drop_expired(connection) == []
