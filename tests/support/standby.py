"""A streaming standby of a throw-away server, made as PostgreSQL says: from a base backup, with nothing stopped."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from position_ledger import Ledger
from position_ledger.embedded.temporary import TemporaryPostgres
from position_ledger.settings import Settings, load_settings
from tests.support import engine, only_positions
from tests.support.command_line import CommandLine, in_this_process
from tests.support.engine_fixtures import NO_QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "standby"
LIMIT_S = 30.0
OF_THE_PRIMARY_ALONE = ("postmaster.*", "pg_wal", "pg_replslot")
NUMBER = "SELECT pg_wal_lsn_diff({}, '0/0')::bigint"


class Pair(NamedTuple):
    """A primary with a projected history, and its standby."""

    primary: TemporaryPostgres
    standby: TemporaryPostgres

    @property
    def settings(self) -> Settings:
        """Those of the primary."""
        return settings_of(self.primary)

    @property
    def reading(self) -> Settings:
        """Those of who reads on the standby."""
        return settings_of(self.standby).model_copy(update={"read_only": True})

    @property
    def on_primary(self) -> CommandLine:
        """Commands whose database is the primary."""
        return _commands(self.primary)

    @property
    def on_standby(self) -> CommandLine:
        """Commands whose database is the standby."""
        return _commands(self.standby)

    @property
    def whichever_writes(self) -> Settings:
        """Those of who names both, and takes the one that can be written."""
        first, second = (conninfo_to_dict(one.database_url) for one in self)
        both = {name: f"{first[name]},{second[name]}" for name in ("host", "port")}
        url = make_conninfo(self.primary.database_url, **both, target_session_attrs="read-write")
        return self.settings.model_copy(update={"database_url": url})

    def replay(self) -> None:
        """Wait until the standby has all that the primary has written so far."""
        until_replayed(self.primary, self.standby)


def settings_of(server: TemporaryPostgres) -> Settings:
    """Settings for a server that a test has to itself; only positions are projected."""
    return load_settings(database_url=server.database_url, redis_url=NO_QUEUE, projections=only_positions.MODULE)


@contextmanager
def opened(settings: Settings) -> Iterator[Ledger]:
    """A ledger with these settings."""
    with Ledger(settings, engine.reached(settings)) as ledger:
        yield ledger


def briefly(settings: Settings) -> Settings:
    """The same, of somebody who does not wait for long."""
    return settings.model_copy(update={"wait_timeout_s": 0.3})


def _commands(server: TemporaryPostgres) -> CommandLine:
    line = in_this_process(server.database_url)
    return replace(line, settings={**line.settings, "POSITION_LEDGER_PROJECTIONS": only_positions.MODULE})


@contextmanager
def standby_of(primary: TemporaryPostgres) -> Iterator[TemporaryPostgres]:
    """A standby that replays what the primary does, until the end of the block."""
    with TemporaryPostgres(is_durable=False) as standby:
        standby.stop()
        owner = standby.data.stat()
        shutil.rmtree(standby.data)
        _back_up(primary, standby.data)
        (standby.data / "standby.signal").touch()
        primary_at = conninfo_to_dict(primary.database_url)
        primary_at.pop("dbname")
        conninfo = make_conninfo("", **{**primary_at, "application_name": NAME}).replace("'", "''")
        with (standby.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{conninfo}'\n")
        for path in (standby.data, *standby.data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        standby.data.chmod(0o700)
        standby.start()
        until_replayed(primary, standby)
        yield standby


def _back_up(primary: TemporaryPostgres, target: Path) -> None:
    """Copy the files of a server that goes on working."""
    with _connected(primary) as connection:
        connection.execute("SELECT pg_backup_start('standby', fast => true)")
        shutil.copytree(primary.data, target, ignore=shutil.ignore_patterns(*OF_THE_PRIMARY_ALONE))
        for name in ("pg_wal", "pg_replslot"):
            (target / name).mkdir()
        label = _one(connection, "SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)")
        (target / "backup_label").write_text(label)


def until_replayed(primary: TemporaryPostgres, standby: TemporaryPostgres) -> None:
    """Wait until the standby has replayed what the primary has written so far."""
    with _connected(primary) as wrote, _connected(standby) as reads:
        wanted = _one(wrote, NUMBER.format("pg_current_wal_insert_lsn()"))
        deadline = time.monotonic() + LIMIT_S
        while (_one(reads, NUMBER.format("coalesce(pg_last_wal_replay_lsn(), '0/0')"))) < wanted:
            assert time.monotonic() < deadline, "the standby does not replay"
            time.sleep(0.02)


def pause(standby: TemporaryPostgres) -> None:
    """It receives what the primary writes and replays nothing of it."""
    with _connected(standby) as connection:
        connection.execute("SELECT pg_wal_replay_pause()")


def resume(standby: TemporaryPostgres) -> None:
    """It goes on replaying."""
    with _connected(standby) as connection:
        connection.execute("SELECT pg_wal_replay_resume()")


def promote(standby: TemporaryPostgres) -> None:
    """Make it a primary of its own, as after the loss of the other one."""
    with _connected(standby) as connection:
        assert _one(connection, "SELECT pg_promote(wait => true)")


@contextmanager
def _connected(server: TemporaryPostgres) -> Iterator[psycopg.Connection[Any]]:
    with closing(psycopg.connect(server.database_url, autocommit=True)) as connection:
        yield connection


def _one(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]
