"""What the administrator of a server has set for its own reasons changes nothing that the ledger writes, reads or proves."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from position_ledger import Ledger
from position_ledger.database import connect
from position_ledger.migration.session import Limits, migration_session
from position_ledger.sessions import RELIED_ON
from position_ledger.settings import load_settings
from tests.support import engine, only_positions
from tests.support.command_line import in_this_process
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE
from tests.support.rebuilding import rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.settings import Settings

OTHERWISE = {
    "timezone": "Asia/Kolkata",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "lock_timeout": "50ms",
    "idle_session_timeout": "1s",
    "idle_in_transaction_session_timeout": "50ms",
    "transaction_timeout": "100ms",
    "synchronous_commit": "off",
}
AND_MORE = {
    "client_encoding": "LATIN1",
    "search_path": "pg_catalog",
    "statement_timeout": "200ms",
    "row_security": "off",
    "array_nulls": "off",
    "default_transaction_deferrable": "on",
    "check_function_bodies": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""Set by the ledger elsewhere, or without a meaning for it."""

Made = Callable[[Mapping[str, str]], "Settings"]


@pytest.fixture
def database(ledger_server_url: str) -> Iterator[Made]:
    """Makes a database that has settings of its own, and answers the ledger's settings for it."""
    made: list[str] = []

    def make(values: Mapping[str, str]) -> Settings:
        name = f"set_{secrets.token_hex(4)}"
        url = engine.new_database(ledger_server_url, name)
        made.append(name)
        with psycopg.connect(url, autocommit=True) as owner:
            known = {row[0].lower() for row in owner.execute("SELECT name FROM pg_settings").fetchall()}
            for setting, value in values.items():
                if setting in known:
                    owner.execute(
                        sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                            sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)
                        )
                    )
        return load_settings(database_url=url, redis_url=NO_QUEUE, projections=only_positions.MODULE)

    yield make
    for name in made:
        engine.drop_database(ledger_server_url, name)


def test_every_setting_that_is_relied_on_is_tried_otherwise() -> None:
    assert OTHERWISE.keys() == RELIED_ON.keys()
    assert all(OTHERWISE[name] != value for name, value in RELIED_ON.items())


@pytest.mark.parametrize("as_app", [True, False])
def test_every_session_is_set_to_what_is_relied_on(database: Made, as_app: bool) -> None:  # noqa: FBT001 - a parameter
    settings = database({**OTHERWISE, **AND_MORE})
    with closing(connect(str(settings.database_url), settings, as_app=as_app)) as connection:
        limit = {"idle_in_transaction_session_timeout": "2s"} if as_app else {}
        assert values_in(connection) == {**expected_in(connection), **limit}
    with migration_session(str(settings.database_url), "ledger", Limits()) as session:
        assert values_in(session) == expected_in(session)


def values_in(connection: psycopg.Connection[tuple[object, ...]]) -> dict[object, object]:
    rows = connection.execute(
        "SELECT n.name, current_setting(n.name, true) FROM unnest(%s::text[]) AS n (name)", (list(RELIED_ON),)
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def expected_in(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, str | None]:
    without = {"transaction_timeout": None} if connection.info.server_version < 17_00_00 else {}
    return {**RELIED_ON, **without}


def test_a_commit_that_waits_for_a_standby_goes_on_doing_so(database: Made) -> None:
    settings = database({"synchronous_commit": "remote_apply"})
    with closing(connect(str(settings.database_url), settings, as_app=True)) as connection:
        assert values_in(connection)["synchronous_commit"] == "remote_apply"


@pytest.mark.uncounted
@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
def test_the_ledger_is_the_same_whatever_is_set_otherwise(database: Made, isolation: str) -> None:
    # Given a database in which everything is set otherwise
    settings = database({**OTHERWISE, **AND_MORE, "default_transaction_isolation": isolation})
    engine.migrate(settings)
    # When callers meet there, and what they did is projected, read and rebuilt
    with Ledger(settings, engine.reached(settings)) as ledger:

        def trade(seed: int) -> None:
            Traffic(ledger, seed).run(25)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(trade, range(4)))
        ledger.catch_up()
        now = datetime.now(UTC)
        rows = ledger.positions()
        assert len(rows) > 0
        assert ledger.positions(known_at=now) == ledger.positions(as_of=now) == rows
    engine.proven(settings)
    assert rebuild(settings).swapped
    # Then it is all there
    with Ledger(settings, engine.reached(settings)) as ledger:
        assert ledger.positions() == rows
    engine.proven(settings)
    run = in_this_process(str(settings.database_url))
    for arguments in (("verify", "positions"), ("check",), ("status",), ("migrate", "plan"), ("migrate", "status")):
        answer = run(*arguments, POSITION_LEDGER_PROJECTIONS=only_positions.MODULE)
        assert answer.code == 0, (arguments, answer)
