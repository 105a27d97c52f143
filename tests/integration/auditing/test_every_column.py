"""All tables of the ledger: the audit walks over them together, and a change of any column of any of them is a difference."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger import (
    Deposit,
    DetectEdge,
    Ledger,
    MarkPosition,
    OpenPosition,
    RecordGameState,
    ReducePosition,
    RegisterMarket,
)
from position_ledger.auditing.auditor import Auditor
from position_ledger.auditing.state import audits
from position_ledger.projection import digests
from position_ledger.projection.definition import Projection
from position_ledger.projection.differences import comparison, differing
from tests.support import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGED = {
    "numeric": "CASE WHEN {0} IS NULL THEN 0 WHEN {0} = 0 THEN 1e-18 ELSE -{0} END",
    "jsonb": "coalesce(jsonb_build_object('was', {0}), '1.0')",
    "bool": "NOT {0}",
    "timestamptz": "coalesce({0}, now()) + interval '1 us'",
    "text": "coalesce({0} || ' ', '')",
    "int4": "coalesce({0}, 0) + 1",
    "int8": "coalesce({0}, 0) + 1",
}
"""The smallest change of a cell of each type."""


@contextmanager
def with_something_of_everything(url: str) -> Iterator[Ledger]:
    """A row at least in each table."""
    paper: dict[str, Any] = {"environment": "paper", "market": "RAIN"}
    with Ledger.open(database_url=url, redis_url="redis://127.0.0.1:1/0") as opened:
        opened.execute(Deposit(environment="paper", account="main", amount=1000))
        opened.execute(RegisterMarket(**paper, kind="binary"))
        held = opened.execute(
            OpenPosition(**paper, account="main", side="YES", quantity=10, entry_price="0.4", fee="0.1")
        )
        opened.execute(MarkPosition(position_id=str(held.position_id), price="0.3"))
        opened.execute(ReducePosition(position_id=str(held.position_id), quantity=4, price="0.6", fee="0.05"))
        opened.execute(DetectEdge(**paper, true_win_probability="0.6", market_price="0.4", name="rain"))
        opened.execute(RecordGameState(environment="paper", game_id="G-1", home_score=1, away_score=0, period=1))
        opened.catch_up(60)
        yield opened


def types_of(connection: psycopg.Connection[Any], table: str) -> dict[str, str]:
    rows = connection.execute(
        "SELECT a.attname, t.typname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid"
        " WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped",
        (table,),
    )
    return dict(rows.fetchall())


def test_any_cell_of_any_table_is_told_apart_and_named(ledger_database: str) -> None:
    with with_something_of_everything(ledger_database) as ledger:
        # Given a sound ledger, then all tables are walked over together, and none differs
        with engine.connected(ledger.settings) as connection:
            audit = Auditor(connection, ledger.projections, ledger.codec, limit=500)
            assert audit.look().differences == ()
            assert [one.table for one in audits(connection)] == [one.table for one in ledger.projections]
            assert {(one.done, one.ended_at is None) for one in audits(connection)} == {(0.0, False)}
        # when any one cell is changed a little, then its digest is another, and the cell is named
        with engine.connected(ledger.settings, as_app=False) as owner:
            for projection in ledger.projections:
                for column in projection.columns[1:]:  # a row of another id is one missing and one too many
                    with owner.transaction(force_rollback=True):
                        assert changed(owner, projection, column) == (True, [column]), (projection.table, column)


def changed(owner: psycopg.Connection[Any], projection: Projection[Any], column: str) -> tuple[bool, list[str]]:
    """Whether the digest tells a changed cell, and the columns that are named, undone by the caller."""
    table, name = Identifier(projection.table), Identifier(column)
    owner.execute("SET LOCAL session_replication_role = replica")
    owner.execute(SQL("CREATE TABLE public.plain AS SELECT t.* FROM {} AS t").format(table))  # without checks
    types = types_of(owner, f"ledger.{projection.table}")
    make = SQL(CHANGED[types[column]]).format(name)
    typed = digests.columns_of(owner, "ledger", projection.table, projection.columns)
    digest = digests.digest(SQL("public.plain AS t"), typed)
    before = owner.execute(digest, {"shift": 10}).fetchall()
    statement = SQL("UPDATE public.plain SET {} = {} WHERE id = (SELECT max(p.id) FROM public.plain AS p)")
    owner.execute(statement.format(name, make))
    after = owner.execute(digest, {"shift": 10}).fetchall()
    compared = comparison(
        SQL("{} AS t").format(table), SQL("public.plain AS t"), projection.key_column, projection.columns, 10
    )
    found = differing(owner, compared, {}, projection.table, projection.columns)
    return before != after, [one.column for one in found]
