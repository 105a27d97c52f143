"""Reading on a standby: what it has replayed, all of what a token stands for, and nothing written by any way."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

import psycopg
import pytest

from position_ledger.errors import ConfigurationError, DatabaseUnavailable, KnownAtRefused, NotYetVisible
from tests.support import engine, pages
from tests.support.commands import marking, opening
from tests.support.standby import Pair, briefly, opened, pause, promote, resume, settings_of, standby_of

if TYPE_CHECKING:
    from position_ledger.embedded.temporary import TemporaryPostgres

POSITION = "the position"
READING = (
    ("positions",),
    ("positions", "--status", "open", "--json"),
    ("positions", "--as-of", "2100-01-01T00:00:00Z", "--format", "csv"),
    ("show", POSITION),
    ("history", POSITION),
    ("events", POSITION, "--json"),
    ("lots", POSITION),
    ("reference", "list", "strategies"),
)
SAYS_SO = "position-ledger: this server is a standby: it shows what it has replayed, up to a commit of "


@pytest.mark.uncounted
def test_reading_commands_answer_on_a_standby_what_they_answer_on_the_primary_and_say_where_they_read(
    pair: Pair,
) -> None:
    with opened(pair.settings) as trading:
        done = trading.execute(opening())
        trading.wait_for(done.token)
    pair.replay()
    for reading in READING:
        arguments = [done.position_id if one == POSITION else one for one in reading]
        there, here = pair.on_primary(*arguments), pair.on_standby(*arguments)
        assert (here.code, here.out) == (there.code, there.out) == (0, there.out), (arguments, here, there)
        assert there.out, arguments
        assert SAYS_SO in here.err, (arguments, here)
        assert SAYS_SO not in there.err, (arguments, there)


def test_the_page_shows_what_is_answered(pair: Pair) -> None:
    page = pages.text_of("standby")
    with opened(pair.settings) as trading:
        held = trading.execute(opening(market="KXNBA-MIA", account="main", quantity=100, entry_price="0.42"))
        marked = trading.execute(marking(held.position_id, "0.47"))
        trading.wait_for(marked.token)
        pair.replay()
        ((command, shown),) = pages.commands(page)
        answer = pair.on_standby(*shlex.split(command)[1:], COLUMNS="110")
        assert pages.alike(shown).fullmatch(answer.err + answer.out), answer
        # The code of the page, with the token of the command
        code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
        assert code is not None
        names = {"STANDBY": pair.standby.database_url, "token": marked.token}
        with patch.dict(os.environ, pair.on_standby.settings):
            exec(compile(code[1], "standby.md", "exec"), names)  # noqa: S102 - our own page
        assert names["held"] == names["then"] == trading.positions(market="KXNBA-MIA") != []


def test_what_a_token_stands_for_is_waited_for_on_a_standby(pair: Pair) -> None:
    with opened(pair.settings) as trading, opened(pair.reading) as reading:
        position = trading.execute(opening()).position_id
        # Given a command that the standby does not know yet
        pause(pair.standby)
        marked = trading.execute(marking(position, "0.61"))
        engine.project_all(pair.settings)
        with pytest.raises(NotYetVisible):
            reading.wait_for(marked.token, timeout_s=0.3)
        with (
            opened(briefly(pair.reading)) as impatient,
            pytest.raises(KnownAtRefused, match=f"known at token {marked.token} is not yet in positions"),
        ):
            impatient.positions(known_at=marked.token)
        # When it has replayed it, then its rows are there
        resume(pair.standby)
        reading.wait_for(marked.token, timeout_s=20)
        row = reading.position(position)
        assert row == trading.position(position)
        assert row["current_price"] == trading.position(position, known_at=marked.token)["current_price"]
        assert reading.positions(known_at=marked.token) == trading.positions(known_at=marked.token)
        before = trading.positions(known_at=marked.token - 1)
        assert reading.positions(known_at=marked.token - 1) == before != reading.positions()


def test_who_waits_on_a_standby_does_not_try_to_project(pair: Pair) -> None:
    """No worker runs: on the primary whoever waits projects, a reader of the standby waits for somebody who does."""
    with opened(pair.settings) as trading, opened(pair.reading) as reading:
        done = trading.execute(opening())
        pair.replay()
        with pytest.raises(NotYetVisible):
            reading.wait_for(done.token, timeout_s=0.5)
        trading.wait_for(done.token)
        reading.wait_for(done.token, timeout_s=20)
        assert reading.position(done.position_id) == trading.position(done.position_id)


def test_a_standby_refuses_what_it_cannot_know(pair: Pair) -> None:
    pair.replay()
    with opened(pair.reading) as reading, pytest.raises(ConfigurationError, match="cannot be followed on a standby"):
        reading.catch_up()
    # and nobody is let in to trade
    with pytest.raises(ConfigurationError, match="connect to the primary; a ledger with the setting read_only reads"):
        opened(settings_of(pair.standby)).__enter__()


def test_what_commands_project_themselves_is_waited_for_until_its_event_is_there(pair: Pair) -> None:
    run = pair.on_primary
    assert run("mode", "positions", "inline").code == 0
    try:
        with opened(pair.settings) as trading, opened(pair.reading) as reading:
            trading.execute(opening())
            pair.replay()
            pause(pair.standby)
            done = trading.execute(opening())
            with pytest.raises(NotYetVisible):
                reading.wait_for(done.token, timeout_s=0.3)
            resume(pair.standby)
            reading.wait_for(done.token, timeout_s=20)
            assert reading.position(done.position_id) == trading.position(done.position_id)
            with pytest.raises(KnownAtRefused, match="positions is projected by the commands themselves, so"):
                reading.positions(known_at=done.token)
    finally:
        assert run("mode", "positions", "worker").code == 0


@pytest.mark.parametrize("place", ["primary", "standby"])
def test_a_ledger_that_only_reads_writes_nothing(pair: Pair, place: str) -> None:
    settings = pair.settings.model_copy(update={"read_only": True}) if place == "primary" else pair.reading
    pair.replay()
    with engine.connected(pair.settings, as_app=False) as owner:
        before = owner.execute("SELECT feed_mark()").fetchone()
    with opened(settings) as reading:
        for refused in (
            lambda: reading.execute(opening()),
            lambda: reading.execute_many([opening()]),
            lambda: reading.execute_each([opening()]),
            lambda: reading.settle_market("paper", "M", 1),
            reading.pay_markets,
        ):
            with pytest.raises(ConfigurationError, match="this ledger is read_only: commands go to a ledger"):
                refused()
        # and the server refuses whatever takes another way
        with pytest.raises(DatabaseUnavailable, match="may only be read here"):
            reading.reference.add_strategy("momentum")
    with engine.connected(settings) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("UPDATE positions SET market_id = market_id")
    with engine.connected(pair.settings, as_app=False) as owner:
        assert owner.execute("SELECT feed_mark()").fetchone() == before


def test_a_ledger_that_only_reads_goes_on_when_its_standby_takes_over(server: TemporaryPostgres) -> None:
    with standby_of(server) as standby:
        pair = Pair(server, standby)
        with opened(pair.reading) as reading:
            rows = reading.positions()
            promote(standby)
            assert reading.positions() == rows
            # What was opened for reading stays so, and who opens it to trade can
            with pytest.raises(ConfigurationError, match="this ledger is read_only"):
                reading.execute(opening())
            with opened(settings_of(standby)) as trading:
                done = trading.execute(opening())
                trading.wait_for(done.token)
            reading.wait_for(done.token)
            assert len(reading.positions()) == len(rows) + 1
            assert reading.positions(known_at=datetime.now(UTC)) == reading.positions()


def test_the_doctor_takes_a_standby_for_what_it_is(pair: Pair) -> None:
    pair.replay()
    for read_only, verdict, sentence in (
        ("false", "wrong", "the feed cannot be followed on a standby: connect to the primary"),
        ("true", "note", "the server is a standby: it can be read, and nothing else"),
    ):
        text = " ".join(pair.on_standby("doctor", POSITION_LEDGER_READ_ONLY=read_only).out.split())
        assert f"{verdict} primary {sentence}" in text
