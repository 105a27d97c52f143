"""The audit: round after round over all streams, a little at a time, it finds any cell that is not what the log says."""

from __future__ import annotations

import logging
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from position_ledger import Ledger, MarkPosition
from position_ledger.auditing import auditor
from position_ledger.auditing.auditor import Auditor, Looked
from position_ledger.auditing.service import AuditService
from position_ledger.auditing.state import audits, findings
from position_ledger.cli.status import rendered
from position_ledger.projection.definition import load_projections
from position_ledger.status import read_status
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import CODEC, Traffic
from tests.support.rebuilding import execute, rebuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from position_ledger.settings import Settings
    from position_ledger.status import LedgerStatus

LIMIT_S = 20.0
LOOKS_MAX = 400


@pytest.fixture
def history(settings: Settings, ledger: Ledger) -> str:
    """A position with 30 versions among others, all projected."""
    Traffic(ledger, 3).run(60)
    opened = ledger.execute(opening())
    for cents in range(29):
        ledger.execute(MarkPosition(position_id=str(opened.position_id), price=f"0.{cents + 10}"))
    engine.project_all(settings)
    return str(opened.position_id)


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lag of seconds is nothing where many tests share two cores."""
    monkeypatch.setattr(auditor, "LAG_MAX_S", 3_600.0)


@contextmanager
def auditing(settings: Settings, limit: int = 7) -> Iterator[Auditor]:
    """An audit of this test, with small steps, so that streams are longer than a step."""
    with engine.connected(settings) as connection:
        yield Auditor(connection, load_projections(settings.projections), CODEC, limit=limit)


def round_of(audit: Auditor) -> list[Looked]:
    """Look until the last stream is passed."""
    looks: list[Looked] = []
    while not looks or not looks[-1].is_round:
        looks.append(audit.look())
        assert len(looks) < LOOKS_MAX
    return looks


def found(looks: list[Looked]) -> list[str]:
    return [str(one) for look in looks for one in look.differences]


def forged(settings: Settings, statement: str, **values: Any) -> None:
    with engine.connected(settings, as_app=False) as owner, owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        assert owner.execute(statement.encode(), values).rowcount > 0


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_sound_table_has_no_findings_and_each_step_is_small(settings: Settings, history: str) -> None:
    with engine.connected(settings) as connection:
        (events,) = connection.execute("SELECT count(*) FROM events").fetchone() or (0,)
    for limit in (1, 7, 500):
        with auditing(settings, limit) as audit:
            looks = round_of(audit)
        assert found(looks) == []
        assert max(look.events for look in looks) <= limit
        assert events <= sum(look.events for look in looks) <= 2 * events


def shown(status: LedgerStatus) -> list[str]:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(rendered(status, console))
    return [line.rstrip() for line in captured.get().splitlines()]


PLANTED = {
    "cost = cost + 1e-18": (9, "cost is"),
    "unrealized_pnl = -unrealized_pnl": (20, "unrealized_pnl is"),
    "position_metadata = '{\"a\": 1.0}'": (30, 'position_metadata is {"a": 1.0}, the log says null'),
    "row_expiration_date = row_expiration_date + interval '1 us'": (3, "row_expiration_date is"),
    "row_current_ind = false, row_expiration_date = now() + interval '1 day'": (30, "row_current_ind is false"),
    "position_id = 'POS-99999'": (14, "position_id is POS-99999"),
    "": (30, "the row is missing"),
}
"""Changes of one row by what the audit says; the empty one deletes it. Versions beside and inside the steps of 7."""


@pytest.mark.uncounted
def test_a_planted_cell_is_found_within_one_round_and_closed_once_it_is_right(
    settings: Settings, history: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = engine.positions_rows(settings)
    execute(settings, "CREATE TABLE public.kept AS TABLE positions")
    with auditing(settings) as audit, caplog.at_level(logging.ERROR):
        for change, (version, words) in PLANTED.items():
            # Given one changed cell, when the audit goes round once
            caplog.clear()
            what = f"UPDATE positions SET {change}" if change else "DELETE FROM positions"
            forged(settings, f"{what} WHERE position_id = %(id)s AND version = {version}", id=history)
            (sentence,) = found(round_of(audit))
            # Then it says which, in one line, once
            assert words in sentence
            assert [record.levelname for record in caplog.records] == ["ERROR"]
            assert sentence in caplog.text
            assert found(round_of(audit)) == [], change
            status = read_status(settings, engine.reached(settings))
            assert [str(one) for one in status.differences] == [sentence]
            assert [one.differences for one in status.audits] == [1]
            lines = shown(status)
            assert any(
                re.match(r"audit of positions: last whole round ended 20\S+ \S+Z, this one at 0%", one) for one in lines
            )
            assert "audit: 1 rows of positions differ from the log, rebuild-projection positions mends them" in lines
            assert f"  {sentence}" in lines
            # and when the row is right again, that is seen
            forged(settings, "DELETE FROM positions")
            forged(settings, "INSERT INTO positions TABLE public.kept")
            assert engine.positions_rows(settings) == before
            assert found(round_of(audit)) == []
            with engine.connected(settings) as connection:
                assert findings(connection) == []
    with engine.connected(settings) as connection:
        closed = connection.execute("SELECT count(DISTINCT id) FROM audit_findings WHERE closed_at IS NOT NULL")
        assert closed.fetchone() == (5,)


def test_a_version_too_many_is_found(settings: Settings, history: str) -> None:
    names = ", ".join(
        one for one in engine.positions_of(settings).columns if one not in {"id", "version", "row_expiration_date"}
    )
    forged(
        settings,
        f"INSERT INTO positions (id, version, row_expiration_date, {names}) SELECT 900000, 31, now() + interval '1 h', {names}"
        " FROM positions WHERE position_id = %(id)s AND version = 29",
        id=history,
    )
    with auditing(settings) as audit:
        assert found(round_of(audit)) == [f"positions {history}, row 900000: the row is a row, the log says no row"]
        forged(settings, "DELETE FROM positions WHERE id = 900000")
        round_of(audit)
        with engine.connected(settings) as connection:
            assert findings(connection) == []


def test_a_rebuild_closes_what_was_found_in_the_table_before(settings: Settings, history: str) -> None:
    forged(settings, "UPDATE positions SET cost = cost + 1 WHERE position_id = %(id)s AND version = 2", id=history)
    with auditing(settings) as audit:
        assert len(found(round_of(audit))) == 1
        rebuild(settings, accept_differences=True)
        assert found(round_of(audit)) == []
    with engine.connected(settings) as connection:
        assert findings(connection) == []
        assert connection.execute("SELECT count(*) FROM audit_findings WHERE closed_at IS NULL").fetchone() == (0,)


def test_an_event_that_cannot_be_folded_is_a_finding_and_the_walk_goes_on(settings: Settings, history: str) -> None:
    forged(
        settings,
        "UPDATE events SET state = '{}'"
        " WHERE notification_id = (SELECT p.id FROM positions AS p WHERE p.version = 2 AND p.position_id = %(id)s)",
        id=history,
    )
    with auditing(settings, 500) as audit:
        (one,) = found(round_of(audit))
        assert "the rows of its stream is not what could be compared" in one
        assert found(round_of(audit)) == []


def test_what_is_not_projected_yet_is_no_difference_and_nothing_is_read_while_behind(
    settings: Settings, ledger: Ledger, history: str, slow_machine: None
) -> None:
    # Given events that no worker has projected, just now
    ledger.execute(MarkPosition(position_id=history, price="0.9"))
    with auditing(settings) as audit:
        assert found(round_of(audit)) == []
        # when they have waited for too long, then nothing is read at all
        forged(
            settings,
            "UPDATE events SET recorded_at = recorded_at - interval '2 h'"
            " WHERE notification_id > (SELECT min(position) FROM projection_checkpoints)",
        )
        assert audit.look().events == 0


@pytest.mark.uncounted
def test_an_audit_beside_writers_and_workers_finds_nothing(
    settings: Settings, ledger: Ledger, history: str, slow_machine: None
) -> None:
    """Streams grow and end while the walk is in the middle of them."""
    traffic, stop = Traffic(ledger, 8), threading.Event()

    def work() -> None:
        with engine.following(settings) as follower:
            follower.follow(stop)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        with auditing(settings, 5) as audit:
            looks: list[Looked] = []
            for _ in range(150):
                ledger.execute(MarkPosition(position_id=history, price="0.5"))
                ledger.execute(MarkPosition(position_id=history, price="0.6"))
                traffic.once()
                looks.append(audit.look())
    finally:
        stop.set()
        worker.join(LIMIT_S)
    assert found(looks) == []
    assert sum(look.events for look in looks) > 300


def test_one_worker_audits_and_another_takes_over(settings: Settings, history: str) -> None:
    fast = settings.model_copy(update={"audit_events_per_s": 100_000})
    services = [
        AuditService(str(settings.database_url), fast, load_projections(settings.projections), CODEC) for _ in range(2)
    ]
    locks = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 5262401 AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )

    def ended() -> Any:
        with engine.connected(settings) as connection:
            return [one.ended_at for one in audits(connection)]

    first, second = services
    with engine.connected(settings) as connection:
        try:
            # Given a worker that audits, when another comes, then it waits
            first.start()
            first.start()
            until(lambda: None not in ended() and ended())
            second.start()
            until(lambda: second.is_running)
            assert connection.execute(locks).fetchone() == (1,)
            # and when the first ends, it goes on
            first.stop()
            before = ended()
            until(lambda: ended() != before)
            assert connection.execute(locks).fetchone() == (1,)
        finally:
            for service in services:
                service.stop()
        until(lambda: connection.execute(locks).fetchone() == (0,))


def test_a_rate_of_0_is_no_audit(settings: Settings) -> None:
    off = settings.model_copy(update={"audit_events_per_s": 0})
    service = AuditService(str(settings.database_url), off, load_projections(settings.projections), CODEC)
    service.start()
    assert not service.is_running
    service.stop()
