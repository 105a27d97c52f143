"""A real streaming standby beside the ledger: what may be asked of it, that loads wait for it, and when it takes over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger
from position_ledger.archive import layout
from position_ledger.embedded.temporary import TemporaryPostgres
from position_ledger.projection import watching, yielding
from tests.support import engine
from tests.support.commands import marking, opening
from tests.support.engine import Traffic
from tests.support.rebuilding import execute, left_over, rebuild, row_of, running_rebuild
from tests.support.standby import NAME, Pair, pause, promote, resume, settings_of, standby_of

if TYPE_CHECKING:
    from pathlib import Path

SLOW = 4.0
"""Events a second: a load does not end before the test has seen what it is about."""

UNPACED = "UPDATE projection_rebuilds SET throttle_per_s = NULL"
CLEARED_AFTER_S = 5.0
"""Half of the time after which an idle standby tells its server anew how far it is."""


@pytest.mark.uncounted
def test_a_standby_says_what_it_is_proves_its_rows_and_refuses_what_needs_the_primary(pair: Pair) -> None:
    run = pair.on_standby
    # It shows what it has replayed, and claims nothing about what is in flight
    text = run("status").out
    assert "this server is a standby: what it has replayed is shown, and whoever writes needs the primary" in text
    assert "start position-ledger worker" not in text
    assert "complete up to" not in text
    shown = run("status", "--json").document
    assert (shown["is_standby"], shown["horizon"]) == (True, None)
    # It proves its rows from its own log, and names a row that is not what the log says
    proven = run("verify", "positions")
    assert (proven.code, "equals the log" in proven.out) == (0, True), proven
    with engine.connected(pair.settings, as_app=False) as owner:
        where = "WHERE id = (SELECT max(id) FROM positions)"
        owner.execute("SET session_replication_role = replica")  # beside the fence, as a damaged disk would
        owner.execute(f"UPDATE positions SET market_id = market_id || '!' {where}")  # type: ignore[arg-type]
        pair.replay()
        damaged = run("verify", "positions")
        owner.execute(f"UPDATE positions SET market_id = rtrim(market_id, '!') {where}")  # type: ignore[arg-type]
    assert damaged.code == 1
    assert "market_id is" in damaged.out + damaged.err
    # What writes, or has to know what is in flight, is refused in a sentence that says where to go
    for arguments, sentence in (
        (("worker",), "cannot be followed on a standby: connect to the primary"),
        (("migrate", "up"), "run the command on the primary server"),
        (("rebuild-projection", "positions"), "the server is read-only, so the scratch database"),
        (("rebuild-projection", "positions", "--rollback"), "the server is read-only, so the scratch database"),
        (("mode", "positions", "inline"), "may only be read here"),
    ):
        answer = run(*arguments)
        assert answer.code in (1, 2), (arguments, answer)
        assert sentence in answer.err, (arguments, answer)
        assert "Traceback" not in answer.err


def test_a_load_stands_back_while_a_replica_is_behind(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.05)
    settings = pair.settings.model_copy(update={"rebuild_lag_max_s": 0.3})
    with (
        Ledger(settings, engine.reached(settings)) as ledger,
        running_rebuild(settings, throttle_per_s=SLOW) as going,
    ):
        going.until(lambda row: row.state == "loading" and row.events_done > 0)
        # Given a replica that receives what is written and replays none of it
        pause(pair.standby)
        # When the ledger goes on, then the load stands back and says for whom
        while not any("stands back" in message for message in going.told):
            assert not going.future.done(), going.told
            ledger.execute(opening())
            time.sleep(0.05)
        assert any(f"stands back: replica {NAME} is " in message for message in going.told), going.told
        row = row_of(settings)
        assert row is not None
        assert (row.yields_to or "").startswith(f"replica {NAME} is ")
        # When the replica has replayed everything, then it goes on
        resume(pair.standby)
        going.until_told("goes on")
        execute(settings, UNPACED)
        assert going.report().swapped
    engine.project_all(settings)
    engine.proven(settings)


def test_a_replica_that_has_replayed_everything_is_not_behind_whatever_its_last_lag_was(pair: Pair) -> None:
    """The server shows the last lag that it has measured for as long as nothing more is written."""
    with (
        engine.connected(pair.settings, as_app=False) as owner,
        Ledger(pair.settings, engine.reached(pair.settings)) as ledger,
    ):
        # Given a replica that has been behind
        pause(pair.standby)
        while (found := yielding.furthest_behind(owner)) is None or found.lag_s < 0.5:
            ledger.execute(opening())
            time.sleep(0.05)
        assert found.what == f"replica {NAME}"
        # When it has replayed everything, and nobody writes
        resume(pair.standby)
        pair.replay()
        # Then it is behind no more
        looked_until = time.monotonic() + CLEARED_AFTER_S
        while yielding.furthest_behind(owner) is not None:
            assert time.monotonic() < looked_until
            time.sleep(0.02)
    engine.project_all(pair.settings)


def test_an_archive_of_the_standby_loads_a_table_of_the_primary(pair: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    with Ledger(pair.settings, engine.reached(pair.settings)) as ledger:
        traffic = Traffic(ledger, 9)
        projected = traffic.run(20)
        engine.project_all(pair.settings)
        traffic.run(10)  # not projected yet, so that a standby cannot say whether that is all
        pair.replay()
        # When the log is archived from the standby
        exported = pair.on_standby("archive", "export", str(folder))
    assert exported.code == 0, exported
    assert layout.read_manifest(folder).upto == projected
    # Then the primary loads from that archive and takes the tail from its log
    answer = pair.on_primary("rebuild-projection", "positions", "--archive", str(folder))
    assert answer.code == 0, answer
    assert f" events of archive {folder} in " in answer.err
    engine.project_all(pair.settings)
    engine.proven(pair.settings)


def test_a_promoted_standby_goes_on_where_the_primary_was_lost(server: TemporaryPostgres) -> None:
    with standby_of(server) as standby:
        pair = Pair(server, standby)
        # Given commands that the standby has replayed, some of them not projected, and a rebuild in its load
        with Ledger(pair.settings, engine.reached(pair.settings)) as ledger:
            last = ledger.execute(opening())
        rows = engine.positions_rows(pair.settings)
        with running_rebuild(pair.settings, throttle_per_s=SLOW) as lost:
            generation_id = lost.until(lambda row: row.state == "loading" and row.events_done > 0).generation_id
            pair.replay()
            # When it takes over
            promote(standby)
            settings = settings_of(standby)
            with Ledger(settings, engine.reached(settings)) as ledger:
                # Then numbers go on behind those that were given, and what was written is neither lost nor doubled
                first = ledger.execute(opening())
                assert first.token > last.token
                Traffic(ledger, 11).run(20)
            engine.project_all(settings)
            before = engine.positions_rows(settings)
            assert [row for row in before if row in rows] == rows
            engine.proven(settings)
            # and the rebuild goes on there with what was loaded, and gives the same table
            again = rebuild(settings)
        assert (again.swapped, again.generation_id) == (True, generation_id)
        engine.project_all(settings)
        assert engine.positions_rows(settings) == before
        assert left_over(settings) == []


def test_a_ledger_that_names_both_servers_goes_on_with_the_one_that_takes_over(server: TemporaryPostgres) -> None:
    with standby_of(server) as standby:
        pair = Pair(server, standby)
        settings = pair.whichever_writes
        with Ledger(settings, engine.reached(settings)) as ledger:
            held = ledger.execute(opening())
            ledger.wait_for(held.token)
            pair.replay()
            # When the primary is gone and the standby has taken over
            server.stop()
            try:
                promote(standby)
                # Then the same ledger goes on there
                marked = ledger.execute(marking(held.position_id, "0.63"))
                assert marked.token > held.token
                ledger.wait_for(marked.token)
                assert f"{ledger.position(held.position_id)['current_price']:.2f}" == "0.63"
                engine.proven(settings)
            finally:
                server.start()
