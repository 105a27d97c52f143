"""What verify, check and the start rule find: every cell, every row, every event, every column."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.sql import SQL

from position_ledger import Ledger, MarkPosition, operations
from position_ledger.domain.errors import LedgerError
from position_ledger.errors import SchemaMismatch
from position_ledger.projection import digests
from position_ledger.projection.projector import WriteMismatch
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import Traffic
from tests.support.rebuilding import busy, execute, rebuild

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


@pytest.mark.uncounted
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


def test_verify_is_right_while_tables_are_swapped_and_commands_go_on(settings: Settings, history: str) -> None:
    """Each proof sees one generation from beginning to end."""
    done = threading.Event()
    reports: list[Any] = []

    def verify() -> None:
        while not done.is_set() or not reports:
            reports.append(operations.verify(settings, engine.reached(settings), ["positions"]))

    with busy(settings, writers=1), ThreadPoolExecutor(1) as pool:
        verifying = pool.submit(verify)
        try:
            report = rebuild(settings)
        finally:
            done.set()
        verifying.result(60)
    assert report.swapped
    assert [problem for one in reports for problem in one.problems] == []


# Every kind of column, by every way of proving


def test_digests_tell_apart_whatever_is_written_differently(settings: Settings) -> None:
    """The server's hash of a row takes -5 for 5, 1.0 for 1.00 and 0 for -0; types without a hash stop it."""
    kinds = {
        "numeric(38,18)": ["5", "-5", "0", "5.000000000000000001", None],
        "numeric": ["1.0", "1.00", "-1.0", "NaN", None],
        "double precision": ["0", "-0", "0.1", "0.10000000000000002", None],
        "jsonb": ['{"a": 1.0}', '{"a": 1.00}', '{"a": -1.0}', '{"a": 0.1234567890123456789}', "null", None],
        "json": ['{"a": 1}', '{"a":1}', None],
        "timestamptz": ["2026-01-01 00:00:00.000001+00", "2026-01-01+00", "infinity", None],
        "text": ["a", "A", "a ", "", "null", None],
        "boolean": ["true", "false", None],
        "text[]": ["{a,b}", "{b,a}", "{NULL}", "{}", None],
        "bytea": ["\\x00", "\\x0000", None],
        "uuid": ["00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001", None],
        "price": ["1.5", "-1.5", None],
        "kind": ["a", "b", None],
        "bit varying": ["101", "1010", None],
        "integer": ["1", "-1", "0", None],
    }
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("CREATE DOMAIN price AS numeric(10,4); CREATE TYPE kind AS ENUM ('a', 'b')")
        for kind, values in kinds.items():
            owner.execute(f"CREATE TABLE cells (id bigint, cell {kind})".encode())
            owner.cursor().executemany(f"INSERT INTO cells VALUES (1, %s::{kind})".encode(), [(one,) for one in values])
            statement = SQL("SELECT count(DISTINCT {}), count(*) FROM cells AS t").format(
                digests.hash_of(digests.columns_of(owner, "ledger", "cells", ["id", "cell"]))
            )
            assert owner.execute(statement).fetchone() == (len(values), len(values)), kind
            owner.execute("DROP TABLE cells")


def test_a_table_has_one_digest_whatever_the_order_of_its_rows(settings: Settings, history: str) -> None:
    """Two runs, several processes, a restored backup: the same rows have the same digest, and no others."""

    def proof(**options: Any) -> Any:
        (found,) = operations.verify(settings, engine.reached(settings), ["positions"], **options).tables
        assert found.position == found.highest
        return found

    before = proof()
    assert proof(processes=2) == before
    forged(settings, "CREATE TABLE public.kept AS TABLE positions", "DELETE FROM positions")
    forged(settings, "INSERT INTO positions SELECT k.* FROM public.kept AS k ORDER BY k.cost, k.id DESC")
    assert proof() == before
    forged(
        settings,
        "UPDATE positions SET peak_quantity = peak_quantity + 1e-18 WHERE id = (SELECT min(id) FROM positions)",
    )
    assert proof().digest != before.digest


def test_a_digest_writes_nothing_to_disk_however_large_the_table(settings: Settings, history: str) -> None:
    """The planner takes each id for a bucket of its own, and would sort whole rows."""
    projection = engine.positions_of(settings)
    files = "SELECT temp_files FROM pg_stat_database WHERE datname = current_database()"
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("SET work_mem = '64kB'")
        owner.execute("SET max_parallel_workers_per_gather = 0")  # so that this session counts everything

        def written() -> int:
            owner.execute("SELECT pg_stat_force_next_flush()")
            owner.execute("SELECT 1")
            (count,) = owner.execute(files).fetchone() or (0,)
            return int(count)

        owner.execute("CREATE TABLE public.many AS SELECT p.* FROM positions AS p, generate_series(1, 20)")
        before = written()
        owner.execute("SELECT m FROM public.many AS m ORDER BY m.cost").fetchall()
        spilled = written()
        assert spilled > before  # as much as that does not fit into its memory
        columns = digests.columns_of(owner, "public", "many", projection.columns)
        with owner.transaction():
            digests.taken(owner, digests.digest(SQL("public.many AS t"), columns), {"shift": 0})
        assert written() == spilled
        assert owner.execute("SHOW enable_sort").fetchone() == ("on",)
        owner.execute("DROP TABLE public.many")


def test_ends_of_versions_are_compared_as_far_as_each_shard_is(
    settings: Settings, ledger: Ledger, history: str
) -> None:
    """Given shards at different numbers, then no row is left out, and an end that an event gave is not taken for another."""
    with engine.following(settings, share=False) as follower:
        engine.drain(follower)
        follower.close()
    execute(settings, "UPDATE projection_checkpoints SET holder = 'gone', lease_until = 'infinity' WHERE shard % 2 = 0")
    traffic = Traffic(ledger, 5)
    traffic.run(60)
    with engine.following(settings, share=False) as follower:
        engine.drain(follower)
    (proof,) = operations.verify(settings, engine.reached(settings), ["positions"]).tables
    assert proof.position < proof.highest
    assert proof.difference is None
    # and an end that is a little off is found in the table as it is
    forged(
        settings,
        "UPDATE positions SET row_expiration_date = row_expiration_date + interval '1 us'"
        " WHERE id = (SELECT max(id) FROM positions WHERE NOT row_current_ind)",
    )
    (proof,) = operations.verify(settings, engine.reached(settings), ["positions"]).tables
    assert proof.difference is not None
    assert proof.difference.column == "row_expiration_date"


def test_a_difference_among_large_buckets_is_found_by_small_steps(
    settings: Settings, ledger: Ledger, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "shift_of", lambda _highest: 14)
    forged(settings, "UPDATE positions SET cost = cost + 1 WHERE position_id = %(id)s AND version = 2", id=history)
    with engine.connected(settings, as_app=False) as owner:
        (row_id,) = owner.execute("SELECT id FROM positions WHERE cost = 43").fetchone() or (0,)
    assert f"positions {history}, row {row_id}: cost is 43" in problems(settings, "positions")


@pytest.mark.parametrize(("highest", "shift"), [(0, 10), (2**20 - 1, 10), (2**20, 11), (10**7, 14), (2**40, 31)])
def test_there_are_a_thousand_buckets_at_most(highest: int, shift: int) -> None:
    assert digests.shift_of(highest) == shift
    assert highest >> shift < digests.BUCKETS_MAX
