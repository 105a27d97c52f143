"""What verify, check and the start rule find: every cell, every row, every event, every column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import Ledger, MarkPosition, operations
from position_ledger.domain.errors import LedgerError
from position_ledger.errors import SchemaMismatch
from position_ledger.projection.projector import WriteMismatch
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import Traffic

if TYPE_CHECKING:
    from position_ledger.settings import Settings


@pytest.fixture
def history(settings: Settings, ledger: Ledger) -> str:
    """A position with three versions among others, all projected."""
    Traffic(ledger, 1).run(20)
    opened = ledger.execute(opening())
    for price in ("0.50", "0.60"):
        ledger.execute(MarkPosition(position_id=str(opened.position_id), price=price))
    engine.project_all(settings)
    engine.proven(settings)
    return str(opened.position_id)


def forged(settings: Settings, *statements: str, **values: Any) -> None:
    """What only a superuser can do who takes the fences down."""
    with engine.connected(settings, as_app=False) as owner, owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            owner.execute(statement.encode(), values)


def problems(settings: Settings, *tables: str) -> str:
    report = operations.verify(settings, engine.reached(settings), tables or None)
    assert not report.holds
    return "\n".join(report.problems)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("current_price = 0.51", "current_price is 0.51"),
        ("position_metadata = '{\"a\": 1}'", 'position_metadata is {"a": 1}, the log says null'),
        ("account_id = 'other'", "account_id is other, the log says main"),
        ("mark_time = mark_time + interval '1 microsecond'", "mark_time is"),
        ("row_expiration_date = row_expiration_date + interval '1 microsecond'", "row_expiration_date is"),
        ("row_effective_date = row_effective_date - interval '1 microsecond'", "row_effective_date is"),
        ("version = 7", "version is 7, the log says 2"),
    ],
)
def test_one_changed_cell_is_named(settings: Settings, history: str, change: str, words: str) -> None:
    forged(settings, f"UPDATE positions SET {change} WHERE position_id = %(id)s AND version = 2", id=history)
    found = problems(settings)
    assert f"positions {history}, row " in found
    assert words in found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM positions WHERE position_id = %(id)s AND version = 2", "the row is missing"),
        ("DELETE FROM positions WHERE position_id = %(id)s AND version = 3", "the row is missing"),
        ("DELETE FROM positions WHERE position_id = %(id)s", "the row is missing"),
        (
            "UPDATE positions SET row_current_ind = false, row_expiration_date = now() + interval '1 day'"
            " WHERE position_id = %(id)s AND version = 3",
            "does not hold",
        ),
        (
            "UPDATE positions SET row_current_ind = true, row_expiration_date = NULL WHERE position_id = %(id)s"
            " AND version = 1; ",
            "",
        ),
    ],
    ids=["a row in the middle", "the current row", "a whole position", "an end that never was", "two current rows"],
)
def test_a_wrong_row_is_named(settings: Settings, history: str, change: str, words: str) -> None:
    statements = [change.rstrip("; ")]
    if change.endswith("; "):
        statements.insert(0, "DROP INDEX positions_one_current_row")
    forged(settings, *statements, id=history)
    found = problems(settings)
    assert history in found
    assert words in found


@pytest.mark.parametrize("beyond", [False, True], ids=["below the checkpoint", "beyond the checkpoint"])
def test_a_row_that_no_event_made_is_named(settings: Settings, ledger: Ledger, history: str, *, beyond: bool) -> None:
    columns = [one for one in engine.positions_of(settings).columns if one not in {"id", "position_id", "version"}]
    names = ", ".join(columns)
    with engine.connected(settings, as_app=False) as owner:
        (free,) = owner.execute(
            "SELECT max(notification_id) FROM events WHERE topic NOT LIKE 'position.%'"
        ).fetchone() or (0,)
    number = 10**9 if beyond else free
    forged(
        settings,
        f"INSERT INTO positions (id, position_id, version, {names}) SELECT %(n)s, 'POS-' || %(n)s::text, 1, {names}"
        " FROM positions WHERE position_id = %(id)s AND version = 3",
        n=number, id=history,
    )  # fmt: skip
    assert f"positions POS-{number}, row {number}: the row is a row, the log says no row" in problems(settings)


OF_POSITION = "(SELECT originator_id FROM events WHERE 'POS-' || notification_id::text = %(id)s)"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET state = convert_to(replace(convert_from(state, 'UTF8'), '\"price\":\"0.', '\"price\":\"0.1'),"
        " 'UTF8') WHERE topic LIKE '%%marked%%'",
        "UPDATE events SET state = '{}' WHERE topic LIKE '%%opened%%'",
        'UPDATE events SET metadata = \'{"actor": "somebody else"}\' WHERE notification_id = 1',
        f"DELETE FROM events WHERE originator_version = 2 AND originator_id = {OF_POSITION}",
        f"DELETE FROM events WHERE originator_version = 3 AND originator_id = {OF_POSITION}",
        f"DELETE FROM events WHERE originator_version = 1 AND originator_id = {OF_POSITION}",
        "UPDATE events SET topic = 'position.reduced' WHERE notification_id = 1",
    ],
    ids=[
        "a body",
        "an empty body",
        "metadata",
        "one taken out",
        "the last taken out",
        "the first taken out",
        "a topic",
    ],
)
def test_a_changed_log_is_found(settings: Settings, history: str, change: str) -> None:
    with engine.connected(settings, as_app=False) as owner:
        before = owner.execute("SELECT count(*), bit_xor(hashtext(e::text)) FROM events AS e").fetchone()
        forged(settings, change, id=history)
        assert owner.execute("SELECT count(*), bit_xor(hashtext(e::text)) FROM events AS e").fetchone() != before
    assert problems(settings)


def test_a_table_changed_by_hand_stops_its_projecting(settings: Settings, ledger: Ledger, history: str) -> None:
    # Given a current row that somebody ended by hand
    forged(
        settings,
        "UPDATE positions SET row_current_ind = false, row_expiration_date = now() + interval '1 day'"
        " WHERE position_id = %(id)s AND version = 3",
        id=history,
    )
    before = engine.positions_rows(settings)
    ledger.execute(MarkPosition(position_id=history, price="0.65"))
    # When the next event of its position is projected, then it is refused and nothing is written
    with (
        engine.following(settings, share=False) as follower,
        pytest.raises(LedgerError, match="the table has no current row of POS-.*: is it what the log says"),
    ):
        engine.drain(follower)
    assert engine.positions_rows(settings) == before


def test_a_row_that_changed_under_a_follower_is_a_mismatch(settings: Settings, ledger: Ledger, history: str) -> None:
    # Given a follower of this table alone that keeps the current row in memory
    with engine.following(settings, only=engine.active(settings).generation_id) as follower:
        ledger.execute(MarkPosition(position_id=history, price="0.61"))
        engine.drain(follower)
        forged(
            settings,
            "UPDATE positions SET row_current_ind = false, row_expiration_date = now() WHERE position_id = %(id)s"
            " AND row_current_ind",
            id=history,
        )
        # When it ends that row, then the database finds none to end
        ledger.execute(MarkPosition(position_id=history, price="0.62"))
        with pytest.raises(WriteMismatch, match=r"run position-ledger verify positions"):
            engine.drain(follower)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE positions ADD COLUMN colour text", "the row type lacks colour"),
        ("ALTER TABLE positions DROP COLUMN is_dust CASCADE", "the table lacks is_dust"),
        ("UPDATE projection_generations SET fingerprint = 'other', release = '0.0.9'", "release 0.0.9.*rebuild-projection"),
        ("UPDATE projection_generations SET state = 'dropped'", "never been set up .*migrate up"),
        ("ALTER TABLE positions RENAME TO places", "positions does not exist: run position-ledger migrate up"),
    ],
    ids=["unknown column", "missing column", "other code", "no generation", "no table"],
)  # fmt: skip
def test_a_process_whose_code_does_not_fit_does_not_start(settings: Settings, change: str, words: str) -> None:
    with engine.connected(settings, as_app=False) as owner:
        owner.execute(change.encode())
    with pytest.raises(SchemaMismatch, match=words):
        Ledger(settings, engine.reached(settings))


def test_a_sound_database_passes_check(settings: Settings) -> None:
    assert operations.check(settings, engine.reached(settings)).agree


def test_verify_goes_on_beside_writers_and_says_the_truth(settings: Settings, ledger: Ledger) -> None:
    # Given events that are not projected yet
    traffic = Traffic(ledger, 9)
    traffic.run(40)
    engine.project_all(settings)
    traffic.run(40)
    # When verified, then only what the table claims to have is compared
    report = operations.verify(settings, engine.reached(settings), ["positions"])
    assert report.holds
    assert report.tables[0].rows < 80
    assert report.broken_chain is None
