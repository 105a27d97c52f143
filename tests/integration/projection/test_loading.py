"""The load: what its encoder writes is what the driver writes, and what it loads is what folding one event at a time makes."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as tries
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Json, Jsonb

from position_ledger import Ledger, Recorded, replace
from position_ledger.errors import VerificationFailed
from position_ledger.projection import chunk_ledger, loading, statements
from position_ledger.projection.copy_rows import OPTIONS, RowEncoder, UnfitValue, columns_of
from position_ledger.projection.definition import Projection
from position_ledger.projection.index_building import build_side_by_side
from position_ledger.projection.load_crew import take_parts
from position_ledger.projection.references import LogBroken, Resolver
from position_ledger.projection.scd2 import Version, fold_batch
from position_ledger.store import feed
from tests.support import engine
from tests.support.engine import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.settings import Settings

COLUMNS = {
    "id": "bigint NOT NULL",
    "money": "numeric(38,18)",
    "any_amount": "numeric",
    "small": "smallint",
    "whole": "integer",
    "large": "bigint",
    "is_so": "boolean",
    "words": "text",
    "short": "varchar(40)",
    "at": "timestamptz",
    "day": "date",
    "stream": "uuid",
    "parts": "jsonb",
    "as_sent": "json",
    "fraction": "double precision",
    "names": "text[]",
    "amounts": "numeric[]",
    "raw": "bytea",
    "kind": "kind",
    "price": "price",
}
MAKE = "CREATE TYPE kind AS ENUM ('a', 'b'); CREATE DOMAIN price AS numeric(10,4) CHECK (value >= 0)"
JSON_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ODD_TEXTS = [
    "",
    "null",
    "\\N",
    "\\",
    '"',
    '\\"',
    "\\n",
    "\n",
    "\r\n\t",
    "]\n[",
    "\\.",
    "a\n\\.\n",
    "\x01\x1f\x7f",
    "\u2028é",
    "NaN",
]
TEXTS = st.sampled_from(ODD_TEXTS) | JSON_TEXTS
JSONS = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(TEXTS, inner | st.none(), max_size=3),
    max_leaves=6,
)
MONEY = st.decimals(min_value=-(10**19), max_value=10**19, allow_nan=False, places=18) | st.sampled_from(
    [Decimal("-0"), Decimal("0E-18"), Decimal("1E-18"), Decimal("-1E+19"), Decimal("1.0"), Decimal("1.00")]
)
AMOUNTS = MONEY | st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.integers(-300, 300),
)
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)).flatmap(  # noqa: DTZ001 - given a zone below
    lambda naive: st.integers(-14 * 60, 14 * 60).map(
        lambda minutes: naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    )
)
VALUES = st.fixed_dictionaries(
    {
        "money": st.none() | MONEY,
        "any_amount": st.none() | AMOUNTS,
        "small": st.none() | st.integers(-(2**15), 2**15 - 1),
        "whole": st.none() | st.integers(-(2**31), 2**31 - 1),
        "large": st.none() | st.integers(-(2**63), 2**63 - 1),
        "is_so": st.none() | st.booleans(),
        "words": st.none() | TEXTS,
        "short": st.none() | TEXTS,
        "at": st.none() | TIMES,
        "day": st.none() | st.dates(date(1, 1, 1)),
        "stream": st.none() | st.uuids(),
        "parts": st.none() | JSONS,
        "as_sent": st.none() | JSONS,
        "fraction": st.none() | st.floats(),
        "names": st.none() | st.lists(TEXTS | st.none(), max_size=3),
        "amounts": st.none() | st.lists(AMOUNTS, max_size=3),
        "raw": st.none() | st.binary(max_size=20),
        "kind": st.none() | st.sampled_from("ab"),
        "price": st.none() | st.decimals(0, 99_999, places=4),
    }
)
NOTHING = dict.fromkeys([name for name in COLUMNS if name != "id"])


@pytest.fixture
def tables(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """A connection, and two tables of all types: one for our encoder, one for the driver."""
    with engine.connected(settings, as_app=False) as connection:
        connection.execute(MAKE)
        for name in ("copied", "written"):
            columns = ", ".join(f"{column} {kind}" for column, kind in COLUMNS.items())
            connection.execute(f"CREATE TABLE {name} ({columns})".encode())
        yield connection


def copy(connection: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> None:
    """The rows through our encoder."""
    encoder = RowEncoder(connection, "copied", columns_of(connection, "copied", list(COLUMNS)))
    with connection.cursor().copy(f"COPY copied FROM STDIN WITH ({OPTIONS})".encode()) as copying:
        copying.write(encoder.block(rows))


def write(connection: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> None:
    """The rows as parameters of the driver."""
    wrappers = {"parts": Jsonb, "as_sent": Json}
    places = ", ".join(f"%s::{kind.removesuffix(' NOT NULL')}" for kind in COLUMNS.values())
    values = [
        [
            wrappers[name](value, dumps=msgspec.json.encode) if name in wrappers and value is not None else value
            for name, value in zip(COLUMNS, row, strict=True)
        ]
        for row in rows
    ]
    connection.cursor().executemany(f"INSERT INTO written VALUES ({places})".encode(), values)


def shown(connection: psycopg.Connection[Any], table: str) -> list[tuple[Any, ...]]:
    """Every column as the text that the server writes for it."""
    columns = ", ".join(f"t.{column}::text" for column in COLUMNS)
    return connection.execute(f"SELECT {columns} FROM {table} AS t ORDER BY t.id".encode()).fetchall()


@pytest.mark.uncounted
@tries(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES, min_size=1, max_size=8))
@example([{**NOTHING, "words": text, "short": text, "parts": [text], "names": [text]} for text in ODD_TEXTS])
@example([NOTHING, {**NOTHING, "any_amount": Decimal(10) ** 4000}, {**NOTHING, "any_amount": Decimal("1E-4000")}])
def test_every_value_of_every_type_arrives_as_if_the_driver_had_written_it(
    tables: psycopg.Connection[Any], rows: list[dict[str, Any]]
) -> None:
    given_rows = [(number, *(row[name] for name in NOTHING)) for number, row in enumerate(rows)]
    with tables.transaction(force_rollback=True):
        copy(tables, given_rows)
        write(tables, given_rows)
        assert shown(tables, "copied") == shown(tables, "written")


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("money", Decimal("NaN"), "not an amount"),
        ("any_amount", Decimal("-Infinity"), "not an amount"),
        ("money", Decimal("sNaN"), "not an amount"),
        ("words", "a\0b", "NUL"),
        ("words", "\ud800", "surrogates not allowed"),
        ("parts", {"a": object()}, "object"),
        ("whole", object(), "object"),
        ("names", ["a", object()], "object"),
    ],
)
def test_what_no_column_should_hold_is_refused_and_named(
    tables: psycopg.Connection[Any], column: str, value: Any, why: str
) -> None:
    encoder = RowEncoder(tables, "copied", columns_of(tables, "copied", list(COLUMNS)))
    row = (7, *{**NOTHING, column: value}.values())
    with pytest.raises(UnfitValue, match=rf"copied, row 7: column {column} .* cannot hold .*{why}.*correct the fold"):
        encoder.block([(6, *NOTHING.values()), row])


def test_the_words_of_no_number_are_welcome_in_a_text(tables: psycopg.Connection[Any]) -> None:
    copy(tables, [(1, *{**NOTHING, "words": "NaN", "short": "-Infinity", "money": Decimal(1)}.values())])
    assert tables.execute("SELECT words, short FROM copied").fetchall() == [("NaN", "-Infinity")]


# What is loaded


@pytest.fixture
def history(ledger: Ledger) -> Traffic:
    """A random history of some positions."""
    traffic = Traffic(ledger, 5)
    traffic.run(150)
    return traffic


def bare(settings: Settings, projection: Projection[Any]) -> None:
    """An empty table without indexes or checks, in a schema of its own."""
    with engine.connected(settings, as_app=False) as connection:
        connection.execute("CREATE SCHEMA bare")
        connection.execute(f"CREATE TABLE bare.{projection.table} (LIKE ledger.{projection.table})".encode())


def load(settings: Settings, projection: Projection[Any], chunks: int = 3) -> loading.Loaded:
    """Everything, in this process."""
    bare(settings, projection)
    with engine.connected(settings, as_app=False) as connection:
        upto = feed.horizon(connection)
        chunk_ledger.create(connection, "bare", upto, chunks)
    with loading.Loader(str(settings.database_url), settings, projection, "bare") as loader:
        return take_parts(loader)


def one_by_one(settings: Settings, projection: Projection[Any]) -> list[Version]:
    """The log in the order of its numbers, each event read, resolved and folded alone."""
    resolver, current, made = Resolver(engine.CODEC, projection.folds), dict[str, Version](), list[Version]()
    with engine.connected(settings) as connection:
        upto = feed.horizon(connection)
        for row in feed.page(connection, after=0, upto=upto, topics=projection.topics, limit=10_000):
            made += fold_batch(projection, resolver.resolve(connection, [row]), current).inserted
    return made


@pytest.mark.parametrize("page", [1, 7, 500])
def test_a_load_makes_what_folding_one_event_at_a_time_makes(
    settings: Settings, history: Traffic, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    # Given a random history, and streams that are cut by the end of a page
    monkeypatch.setattr(loading, "FETCH_EVENTS", page)
    monkeypatch.setattr(loading, "PAGE_EVENTS", max(1, page // 3))
    projection = engine.positions_of(settings)
    # When it is loaded by ranges of streams, in pages
    loaded = load(settings, projection)
    # Then every column of every row is that of the event-by-event fold, which the driver wrote
    expected = one_by_one(settings, projection)
    assert loaded.versions == len(expected) > 100
    with engine.connected(settings, as_app=False) as connection:
        connection.execute("CREATE SCHEMA folded")
        connection.execute(f"CREATE TABLE folded.{projection.table} (LIKE ledger.{projection.table})".encode())
        for version in expected:
            values = [_wrapped(value) for value in statements.values_of(version)]
            connection.execute(
                SQL("INSERT INTO {} VALUES ({})").format(
                    Identifier("folded", projection.table), SQL(", ").join([SQL("%s")] * len(values))
                ),
                values,
            )
        assert engine.table_rows(connection, projection, "bare") == engine.table_rows(connection, projection, "folded")


def _wrapped(value: Any) -> Any:
    return Jsonb(value, dumps=msgspec.json.encode) if isinstance(value, (dict, list, msgspec.Struct)) else value


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("strategy_id", 2**63, "strategy_id"),
        ("restatements", 2**31, "restatements"),
        ("cost", Decimal(10) ** 20, "numeric field overflow"),
        ("account_id", None, "account_id"),
        ("cost", Decimal("NaN"), "column cost .* not an amount"),
    ],
)
def test_a_value_beyond_its_column_stops_the_load_and_is_named(
    settings: Settings, history: Traffic, column: str, value: Any, why: str
) -> None:
    positions = engine.positions_of(settings)
    numbers = count()

    def spoiled(fold: Any) -> Any:
        def folded(row: Any, event: Recorded[Any]) -> Any:
            made = fold(row, event)
            return replace(made, **{column: value}) if next(numbers) == 20 else made

        return folded

    folds = {event: spoiled(fold) for event, fold in positions.folds.items()}
    broken = Projection(positions.table, positions.key_column, positions.key, positions.row, folds)
    with pytest.raises(VerificationFailed, match=why):
        load(settings, broken)
    with engine.connected(settings) as connection:
        assert engine.table_rows(connection, positions) == []


def test_an_event_whose_opening_is_gone_is_named(settings: Settings, history: Traffic) -> None:
    with engine.connected(settings, as_app=False) as connection:
        connection.execute("SET session_replication_role = replica")  # beside the fence, as a damaged disk would
        stream, seq = connection.execute(
            "DELETE FROM events WHERE originator_version = 1 AND topic = 'position.opened' AND originator_id IN "
            "(SELECT originator_id FROM events WHERE originator_version = 2) RETURNING originator_id, notification_id"
        ).fetchall()[0]
        first = connection.execute(
            "SELECT min(notification_id) FROM events WHERE originator_id = %s", (stream,)
        ).fetchone()
    assert first is not None
    assert first[0] > seq
    with pytest.raises(LogBroken, match=r"refers to version 1 of stream .*run position-ledger verify"):
        load(settings, engine.positions_of(settings), 1)


# Indexes afterwards

SEARCH_PATH = SQL("SET LOCAL search_path = ledger")


def indexes(settings: Settings) -> set[str]:
    """Those of the table that is indexed here."""
    with engine.connected(settings, as_app=False) as connection:
        return {
            row[0]
            for row in connection.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'numbers'").fetchall()
        }


@pytest.fixture
def numbers(settings: Settings) -> None:
    """A table with two rows of one text."""
    with engine.connected(settings, as_app=False) as connection:
        connection.execute("CREATE TABLE numbers AS SELECT n, 'same' AS t FROM generate_series(1, 2) AS n")


@pytest.mark.usefixtures("numbers")
def test_indexes_are_built_several_at_a_time(settings: Settings) -> None:
    statements_of = [SQL(f"CREATE INDEX by_{number} ON numbers (n)") for number in range(5)]  # type: ignore[arg-type]
    build_side_by_side(str(settings.database_url), settings, statements_of, SEARCH_PATH)
    assert indexes(settings) == {f"by_{number}" for number in range(5)}
    build_side_by_side(str(settings.database_url), settings, [], SEARCH_PATH)


@pytest.mark.usefixtures("numbers")
def test_an_index_that_cannot_be_built_stops_the_others(settings: Settings) -> None:
    wrong = SQL("CREATE UNIQUE INDEX one_text ON numbers (t)")
    later = [SQL(f"CREATE INDEX later_{number} ON numbers (n)") for number in range(3)]  # type: ignore[arg-type]
    with pytest.raises(psycopg.errors.UniqueViolation, match=re.escape("one_text")):
        build_side_by_side(str(settings.database_url), settings, [wrong, *later], SEARCH_PATH, at_once=1)
    assert indexes(settings) == set()
