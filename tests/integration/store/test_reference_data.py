"""Reference tables: what never changes, what may, and that commands are checked against them before they are appended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier

from position_ledger import CommandRejected, DetectEdge, Executed, Ledger, Reason, ReferenceRefused
from position_ledger.database import only_row
from position_ledger.execution.references import UNUSED_BELIEVED_S, KnownReferences
from position_ledger.reference_data import NUMBERED, TABLES, ReferenceStatus
from position_ledger.testing.databases import owner_cursor
from tests.support.commands import opening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYS = {
    "strategies": "strategy_id",
    "probability_models": "model_id",
    "platforms": "platform_id",
    "market_events": "market_event_id",
}
FIELDS = {"strategies": "strategy", "probability_models": "model", "platforms": "platform"}
"""Tables that positions refer to, and by which field of their commands."""


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as opened:
        yield opened


def an_id(table: str, number: int = 1) -> int | str:
    return number if table in NUMBERED else f"row-{number}"


def count_events(ledger: Ledger) -> int:
    with ledger._connection() as connection:
        return int(only_row(connection.execute("SELECT count(*) FROM events"))[0])


@pytest.mark.parametrize("table", TABLES)
def test_a_row_comes_back_as_it_was_entered(ledger: Ledger, table: str) -> None:
    config = {"lookback_days": 20, "threshold": "0.05", "markets": ["ä😀"], "nested": {"on": True, "off": None}}
    entered = ledger.reference.add(table, "momentum", id=an_id(table, 7), config=config, notes="first")

    assert ledger.reference.get(table, an_id(table, 7)) == entered
    assert ledger.reference.list(table) == (entered,)
    assert (entered.id, entered.version, entered.config) == (an_id(table, 7), "1", config)
    assert entered.status == ("draft" if table in NUMBERED else "active")
    assert entered.created_at.utcoffset() is not None


@pytest.mark.parametrize("table", sorted(NUMBERED))
def test_rows_without_an_id_are_numbered_after_the_highest(ledger: Ledger, table: str) -> None:
    ids = [
        ledger.reference.add(table, "a").id,
        ledger.reference.add(table, "b", id=41).id,
        ledger.reference.add(table, "c").id,
    ]
    assert ids == [1, 41, 42]


def test_a_change_of_config_is_another_version(ledger: Ledger) -> None:
    """S2."""
    first = ledger.reference.add_strategy("momentum", config={"days": 20}, status="active")
    second = ledger.reference.new_version("strategies", first.id, version="2", config={"days": 10})

    assert (second.name, second.version, second.config, second.status) == ("momentum", "2", {"days": 10}, "draft")
    assert ledger.reference.list("strategies", name="momentum") == (first, second)
    assert ledger.reference.list("strategies", status="active") == (first,)


CHANGES = {
    "the config": "UPDATE {table} SET config = '{{\"days\": 10}}'",
    "the name": "UPDATE {table} SET name = 'other'",
    "the version": "UPDATE {table} SET version = '2'",
    "the time of entry": "UPDATE {table} SET created_at = created_at - interval '1 day'",
    "the id": "UPDATE {table} SET {key} = {other}",
    "everything at once": "UPDATE {table} SET status = 'deprecated', config = '{{}}'",
    "a delete": "DELETE FROM {table}",
    "a truncate": "TRUNCATE {table}",
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_a_row_says_never_changes_even_for_the_owner(ledger: Ledger, table: str, change: str) -> None:
    """S2: strategy and model config is immutable."""
    entered = ledger.reference.add(table, "momentum", id=an_id(table), config={"days": 20})
    other = "9" if table in NUMBERED else "'other'"
    statement = SQL(change).format(table=Identifier(table), key=Identifier(KEYS[table]), other=SQL(other))

    with (
        owner_cursor(ledger.database_url, ledger.settings) as cursor,
        pytest.raises(errors.InsufficientPrivilege, match="history refers to this row"),
    ):
        cursor.execute(statement)

    assert ledger.reference.list(table) == (entered,)


@pytest.mark.parametrize(
    "statement", ["UPDATE strategies SET config = config", "DELETE FROM strategies", "TRUNCATE strategies"]
)
def test_the_app_has_not_even_the_right(ledger: Ledger, statement: Any) -> None:
    with ledger._connection() as connection, pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
        connection.execute(statement)


def test_notes_may_change(ledger: Ledger) -> None:
    entered = ledger.reference.add_strategy("momentum")
    assert ledger.reference.set_notes("strategies", entered.id, "paused for earnings").notes == "paused for earnings"
    assert ledger.reference.set_notes("strategies", entered.id, None) == entered


ALLOWED = {
    "draft": {"testing", "active", "deprecated"},
    "testing": {"draft", "active", "inactive", "deprecated"},
    "active": {"inactive", "deprecated"},
    "inactive": {"testing", "active", "deprecated"},
    "deprecated": set(),
}


@pytest.mark.parametrize("before", ReferenceStatus)
def test_the_status_moves_along_allowed_ways_only(ledger: Ledger, before: ReferenceStatus) -> None:
    for number, after in enumerate(ReferenceStatus, 1):
        row = ledger.reference.add_model(f"m{number}", status=before)
        if after in ALLOWED[before]:
            moved = ledger.reference.set_status("probability_models", row.id, after)
            assert moved.status == after
            assert moved.status_changed_at > row.status_changed_at
        elif after is before:
            assert ledger.reference.set_status("probability_models", row.id, after) == row
        else:
            with pytest.raises(ReferenceRefused, match=f"that is {before} cannot become {after}"):
                ledger.reference.set_status("probability_models", row.id, after)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda r: r.add("positions", "x"), "table positions is no reference table; there are strategies"),
        (lambda r: r.add_strategy(" "), "name is ' '; it must be text of 1 to 1000"),
        (lambda r: r.add_strategy("x", id=0), "strategy_id is 0; it must be a whole number from 1"),
        (lambda r: r.add_strategy("x", id="1"), "strategy_id is 1; it must be a whole number from 1"),
        (lambda r: r.add_platform(""), "platform_id is ''; it must be text"),
        (lambda r: r.add("platforms", "x"), "platform_id is None; it must be text"),
        (lambda r: r.add_strategy("x", version=2), "version is 2; it must be text"),
        (lambda r: r.add_strategy("x", config=[1]), r"config is \[1\]; it must be an object"),
        (lambda r: r.add_strategy("x", config={"a": float("nan")}), "config is .*; it must be an object"),
        (lambda r: r.add_strategy("x", config={"a": "\x00"}), "config is .*; it must be an object"),
        (lambda r: r.add_strategy("x", status="live"), "status is live; it must be one of draft, testing"),
        (lambda r: r.add_strategy("there", version="2", id=1), "strategy_id 1 is taken in strategies"),
        (lambda r: r.add_strategy("there"), "strategies has there in version 1 already"),
        (lambda r: r.get("strategies", 99), "strategy_id 99 is not in strategies; list them first"),
        (lambda r: r.set_status("strategies", 99, "active"), "strategy_id 99 is not in strategies"),
        (lambda r: r.new_version("strategies", 99, version="2", config={}), "strategy_id 99 is not in"),
    ],
)
def test_what_is_refused_names_the_field_and_changes_nothing(
    ledger: Ledger, act: Callable[[Any], object], sentence: str
) -> None:
    there = ledger.reference.add_strategy("there")
    with pytest.raises(ReferenceRefused, match=sentence):
        act(ledger.reference)
    assert ledger.reference.list("strategies") == (there,)
    assert not ledger.reference.list("platforms")


@pytest.mark.parametrize(("table", "field"), FIELDS.items())
def test_a_missing_parent_is_told_before_anything_is_appended(ledger: Ledger, table: str, field: str) -> None:
    """S48, S90: the missing parent is a typed error before the append."""
    ledger.reference.add(table, "known", id=an_id(table, 1))
    ledger.execute(opening(**{field: an_id(table, 1)}))
    events = count_events(ledger)

    with pytest.raises(CommandRejected) as caught:
        ledger.execute(opening(**{field: an_id(table, 2)}))
    assert caught.value.reason is Reason.REFERENCE_UNKNOWN
    assert (caught.value.details["field"], caught.value.details["value"]) == (field, an_id(table, 2))
    assert count_events(ledger) == events

    # and once the parent is there the same command is accepted
    ledger.reference.add(table, "later", id=an_id(table, 2))
    assert ledger.execute(opening(**{field: an_id(table, 2)})).events


def test_a_batch_is_refused_as_a_whole_or_each_in_its_place(ledger: Ledger) -> None:
    ledger.reference.add_strategy("known", id=1)
    batch = [
        opening(strategy=1),
        opening(strategy=2),
        DetectEdge(environment="paper", market="M", strategy=3, true_win_probability=1),
    ]
    with pytest.raises(CommandRejected, match="strategy is 2"):
        ledger.execute_many(batch)
    assert not count_events(ledger)

    outcomes = ledger.execute_each(batch)
    assert [isinstance(outcome, Executed) for outcome in outcomes] == [True, False, False]
    assert [getattr(outcome, "reason", None) for outcome in outcomes[1:]] == [Reason.REFERENCE_UNKNOWN] * 2


def test_rows_that_another_process_enters_are_seen(ledger: Ledger, ledger_url: str) -> None:
    """A table in use is asked at every miss, so a row of another process is never missed."""
    ledger.reference.add_strategy("here", id=1)
    ledger.execute(opening(strategy=1))
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as other:
        other.reference.add_strategy("there", id=2)
    assert ledger.execute(opening(strategy=2)).events


def test_the_first_row_of_another_process_is_noticed_after_a_while(ledger: Ledger, ledger_url: str) -> None:
    now = 1000.0
    known = KnownReferences(ledger._connection, clock=lambda: now)
    assert known.has("strategy", 5)  # nobody uses the table
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as other:
        other.reference.add_strategy("first", id=1)

    assert known.has("strategy", 5)  # believed a little longer
    now += UNUSED_BELIEVED_S
    assert not known.has("strategy", 5)
    assert known.has("strategy", 1)


def test_two_callers_never_get_the_same_number(ledger_url: str) -> None:
    """The second waits for the first, and counts on from it."""
    with psycopg.connect(ledger_url) as first, psycopg.connect(ledger_url) as second:
        for connection in (first, second):
            connection.execute("SET search_path TO ledger")
        insert = "INSERT INTO strategies (name) VALUES (%s) RETURNING strategy_id"
        one = first.execute(insert, ("a",)).fetchone()
        second.execute("SET lock_timeout = '100ms'")
        with pytest.raises(errors.LockNotAvailable):
            second.execute(insert, ("b",))
        second.rollback()
        first.commit()
        second.execute("SET search_path TO ledger")
        two = second.execute(insert, ("b",)).fetchone()
    assert (one, two) == ((1,), (2,))
