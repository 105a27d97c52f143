"""The target catalogue: every migration replayed from 001 in an empty scratch database of the same server.

The replay is one transaction that is rolled back, so that nothing it does (a role, say) outlives it, and the database
is dropped. It is cut only behind new values of enum types, which nobody may use before they are committed. An index that
a file builds CONCURRENTLY is built plainly: the catalogue is the same.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from position_ledger.errors import MigrationError
from position_ledger.migration.bookkeeping import BOOKKEEPING, ensure_bookkeeping
from position_ledger.migration.catalogue import diff
from position_ledger.migration.classify import Effect, classify
from position_ledger.migration.cluster import run_beside_others, state_of_cluster
from position_ledger.migration.concurrent import without_concurrently
from position_ledger.migration.execute import StatementFailed, keeping_path, run_section
from position_ledger.migration.history_rules import LOG_TABLES
from position_ledger.migration.introspect import read_catalogue
from position_ledger.migration.session import Connection, Limits, open_session, use_schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psycopg.sql import Composable

    from position_ledger.migration.catalogue import Catalogue
    from position_ledger.migration.files import MigrationFile

__all__ = ["Targets", "between_commits", "defer_again", "replay_file", "scratch_database"]

_PREFIX: Final = "position_ledger_scratch_"
_NAME: Final = re.compile(rf"{_PREFIX}(?P<made_at>\d+)_[0-9a-f]+")
LEFTOVER_AGE_S: Final = 3600
_GUARD: Final = "zz_position_ledger_guard"
_WRITTEN: Final = "position_ledger.written"

_GUARD_FUNCTION: Final = """
    CREATE FUNCTION pg_temp.position_ledger_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_ARGV[0] = 'projected' THEN
            RAISE EXCEPTION '% of rows of the projected table %, which come from the event log only',
                TG_OP, TG_TABLE_NAME;
        END IF;
        PERFORM pg_catalog.set_config('position_ledger.written',
            pg_catalog.concat_ws(',', nullif(pg_catalog.current_setting('position_ledger.written', true), ''),
                                 TG_TABLE_NAME), true);
        RETURN NULL;
    END
    $$
"""
_UNGUARDED: Final = """
    SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND c.relname <> ALL (%s)
       AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = %s)
"""
_GUARDED: Final = """
    SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = %s
     WHERE n.nspname = %s
"""

_NEW_VALUE: Final = re.compile(r"\badd\s+value\b", re.IGNORECASE)
_FILES: Final = """
    SELECT c.relname::text, c.relfilenode::bigint,
           (SELECT string_agg(concat_ws(' ', a.attname, a.atttypid, a.atttypmod, a.attgenerated), ',' ORDER BY a.attnum)
              FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
           EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.pid = pg_backend_pid() AND l.granted
                      AND l.mode = 'RowExclusiveLock'
                      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = ANY (%s)
"""


class Targets:
    """The catalogues that a series of files leads to, replayed when asked for and kept in this process."""

    def __init__(
        self,
        url: str,
        files: Sequence[MigrationFile],
        schema: str = "ledger",
        projected: Collection[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """``url`` is any database of a server on which its role may create databases."""
        self._url = url
        self._files = tuple(files)
        self._schema = schema
        self._projected = frozenset(projected)
        self._limits = limits or Limits()
        self._catalogues: dict[int, Catalogue] = {}
        self._written: dict[int, frozenset[str]] = {}
        self._there: dict[int, frozenset[str]] = {}
        self._lasting: dict[int, str] = {}

    def catalogue_at(self, number: int) -> Catalogue:
        """The catalogue after files 1 to number; 0 is the empty schema."""
        self.prepare([number])
        return self._catalogues[number]

    def prepare(self, numbers: Iterable[int]) -> None:
        """Replay once for several catalogues that will be asked for, say while locks are held."""
        missing = frozenset(numbers) - self._catalogues.keys()
        if missing:
            self._replay(missing)

    def effects(self, numbers: Collection[int]) -> tuple[Effect, ...]:
        """What each numbered file does; MigrationError for one that writes projected rows, or does too much at once."""
        missing = frozenset(numbers) - self._written.keys()
        if missing:
            self._replay({near for number in missing for near in (number - 1, number)}, missing)
        return tuple(self._effect(file) for file in self._files if file.number in numbers)

    def _effect(self, file: MigrationFile) -> Effect:
        before, after = self._catalogues[file.number - 1], self._catalogues[file.number]
        there = {f"role {name}" for name in self._there.get(file.number, ())}  # made, as far as the file goes
        before = replace(before, surroundings=tuple(one for one in before.surroundings if one not in there))
        return classify(file, before, after, self._projected, self._written[file.number])

    def lasting(self, numbers: Collection[int]) -> dict[int, str]:
        """Why each numbered file could not be taken back right after it ran; those that can be are left out."""
        missing = frozenset(numbers) - self._lasting.keys()
        if missing:
            self._replay({near for number in missing for near in (number - 1, number)}, undone=missing)
        return {number: self._lasting[number] for number in sorted(numbers) if self._lasting[number]}

    def _replay(self, wanted: Collection[int], examined: Collection[int] = (), *, undone: Collection[int] = ()) -> None:
        with (
            scratch_database(self._url, self._limits) as url,
            open_session(url, self._limits) as connection,
            _undone(connection) as cluster,
        ):
            ensure_bookkeeping(connection, self._schema)
            connection.execute(_GUARD_FUNCTION)
            self._keep(connection, 0, wanted)
            for file in self._files[: max(wanted)]:
                use_schema(connection, self._schema)
                if file.number in examined:
                    self._written[file.number] = self._run_guarded(connection, file)
                else:
                    self._run(connection, file)
                defer_again(connection)
                self._keep(connection, file.number, wanted)
                if file.number in undone:
                    self._lasting[file.number] = self._why_lasting(connection, file)
                if _needs_commit(file) and state_of_cluster(connection) == cluster:
                    connection.execute("COMMIT; BEGIN")

    def _why_lasting(self, connection: Connection, file: MigrationFile) -> str:
        """What goes wrong when the rollback section runs now, as a failed change set would run it; "" for nothing."""
        try:
            with connection.transaction(force_rollback=True), connection.cursor() as cursor:
                use_schema(connection, self._schema)
                for statement in file.rollback.statements:
                    run_beside_others(cursor, file, statement)
                run_section(cursor, file, [])
                use_schema(connection, self._schema)
                left = diff(self._catalogues[file.number - 1], read_catalogue(connection, self._schema))
        except StatementFailed as error:
            return error.told
        return f"its rollback does not lead back to the schema before it: {'; '.join(left[:5])}" if left else ""

    def _keep(self, connection: Connection, number: int, wanted: Collection[int]) -> None:
        if number in wanted and number not in self._catalogues:
            self._catalogues[number] = read_catalogue(connection, self._schema)

    def _run(self, connection: Connection, file: MigrationFile) -> None:
        replay_file(connection, file)

    def _run_guarded(self, connection: Connection, file: MigrationFile) -> frozenset[str]:
        """Run a file with a trigger on every table: one refuses rows of projected tables, the other takes note.

        A statement trigger fires for no row at all, and these tables are empty. New tables get theirs after the
        statement that made them; a statement that makes and fills one at once is found by the rows it left.
        """
        self._guard(connection)
        before = self._files_of_history(connection)
        there: frozenset[str] = frozenset()
        # in a subtransaction, or a TRUNCATE would leave the file that this very transaction made
        with connection.transaction(), connection.cursor() as cursor, keeping_path(cursor, file):
            if not file.is_transactional:
                self._run(connection, file)
            for statement in file.forward.statements if file.is_transactional else ():
                there |= run_beside_others(cursor, file, statement)
                self._guard(connection)
            run_section(cursor, file, [])
        self._there[file.number] = there
        row = connection.execute("SELECT current_setting(%s, true)", [_WRITTEN]).fetchone()
        self._unguard(connection)
        self._refuse_rows(connection, file)
        written = frozenset(str(row[0]).split(",")) if row and row[0] else frozenset()
        history = _history_written(file, before, self._files_of_history(connection))
        for table in sorted(history & self._projected):
            raise MigrationError(
                f"{file.filename} writes rows of the projected table {table}, which come from the event log only; leave "
                "that out, and correct the events or the projection"
            )
        return written | history

    def _files_of_history(self, connection: Connection) -> dict[str, list[object]]:
        """What the server knows of rows of the log and of projected tables: triggers may be off by the very file."""
        rows = connection.execute(_FILES, [self._schema, [*LOG_TABLES, *self._projected]]).fetchall()
        return {str(name): facts for name, *facts in rows}

    def _guard(self, connection: Connection) -> None:
        tables = connection.execute(_UNGUARDED, [self._schema, list(BOOKKEEPING), _GUARD]).fetchall()
        for (table,) in tables:
            kind = "projected" if table in self._projected else "plain"
            connection.execute(
                sql.SQL(
                    "CREATE TRIGGER {} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} FOR EACH STATEMENT"
                    " EXECUTE FUNCTION pg_temp.position_ledger_guard({})"
                ).format(sql.Identifier(_GUARD), sql.Identifier(self._schema, str(table)), sql.Literal(kind))
            )

    def _unguard(self, connection: Connection) -> None:
        for (table,) in connection.execute(_GUARDED, [_GUARD, self._schema]).fetchall():
            name = sql.Identifier(self._schema, str(table))
            connection.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(_GUARD), name))

    def _refuse_rows(self, connection: Connection, file: MigrationFile) -> None:
        known = connection.execute(
            "SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind = 'r' AND c.relname = ANY (%s)",
            [self._schema, list(self._projected)],
        ).fetchall()
        for (table,) in known:
            query = sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(self._schema, str(table)))
            if connection.execute(query).fetchone():
                raise MigrationError(
                    f"{file.filename} puts rows into the projected table {table}, which come from the event log only; "
                    "leave them out and let the projection make them"
                )


def replay_file(connection: Connection, file: MigrationFile) -> None:
    """Run the forward part in the caller's transaction, in one round trip: it ran before, and only its effect matters.

    Roles that it made are there for the whole cluster, and may be there still.
    Raises StatementFailed with the line and statement, for which it runs once more, one by one.
    """
    texts = [without_concurrently(one) if not file.is_transactional else one.text for one in file.forward.statements]
    script = "\n;\n".join([*texts, "SET CONSTRAINTS ALL IMMEDIATE"])
    try:
        with connection.transaction():
            connection.execute(script.encode(), prepare=False)
    except psycopg.Error:
        if connection.broken:
            raise
    else:
        return
    with connection.cursor() as cursor:
        for statement, text in zip(file.forward.statements, texts, strict=True):
            run_beside_others(cursor, file, statement, text)
        run_section(cursor, file, [])


def _history_written(
    file: MigrationFile, before: Mapping[str, Sequence[object]], now: Mapping[str, Sequence[object]]
) -> set[str]:
    """Tables that were written to, or that a TRUNCATE gave an empty file, their columns being the same."""
    truncates = any("truncate" in one.text.lower() for one in file.forward.statements)
    return {
        name
        for name, (node, columns, was_written) in before.items()
        if name in now
        and (now[name][2] != was_written or (truncates and now[name][1] == columns and now[name][0] != node))
    }


def between_commits(files: Iterable[MigrationFile]) -> Iterator[list[MigrationFile]]:
    """The files in runs that may share a transaction."""
    part: list[MigrationFile] = []
    for file in files:
        part.append(file)
        if _needs_commit(file):
            yield part
            part = []
    if part:
        yield part


def _needs_commit(file: MigrationFile) -> bool:
    """Whether later files may use what it makes only once it is committed: values that an enum type is given."""
    return any(_NEW_VALUE.search(one.text) for one in file.forward.statements)


@contextlib.contextmanager
def _undone(connection: Connection) -> Iterator[object]:
    """A transaction that is rolled back; yields the state of the cluster, which nothing is committed to change."""
    connection.execute("BEGIN")
    try:
        yield state_of_cluster(connection)
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")


def defer_again(connection: Connection) -> None:
    """Each file begins with constraints as declared, though the files before it share its transaction here."""
    row = connection.execute(
        "SELECT string_agg(DISTINCT format('%I.%I', n.nspname, k.conname), ', ') FROM pg_constraint k"
        " JOIN pg_namespace n ON n.oid = k.connamespace WHERE k.condeferred"
    ).fetchone()
    if row and row[0]:
        connection.execute(f"SET CONSTRAINTS {row[0]} DEFERRED".encode())


@contextlib.contextmanager
def scratch_database(url: str, limits: Limits) -> Iterator[str]:
    """Create an empty database beside the one of url, with its encoding and locale; yield its conninfo and drop it."""
    name = f"{_PREFIX}{int(time.time())}_{secrets.token_hex(6)}"
    with open_session(url, limits) as admin:
        _drop_leftovers(admin)
        _create(admin, name)
        try:
            yield make_conninfo(url, dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _create(admin: Connection, name: str) -> None:
    options = [sql.SQL("TEMPLATE template0"), *_like_here(admin)]
    try:
        admin.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), sql.SQL(" ").join(options)))
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise MigrationError(
            "the server is read-only, so the scratch database in which migrations are tried cannot be made there; run the "
            "command on the primary, or name another server with POSITION_LEDGER_SCRATCH_URL"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"role {admin.info.user} may not create the scratch database in which migrations are tried; "
            f'run ALTER ROLE "{admin.info.user}" CREATEDB, or name another server with POSITION_LEDGER_SCRATCH_URL'
        ) from error


def _like_here(admin: Connection) -> list[Composable]:
    """Encoding and locale of this database: they decide what a constraint or an index means."""
    with admin.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT pg_encoding_to_char(encoding) AS encoding, to_jsonb(d) AS facts FROM pg_database d"
            " WHERE datname = current_database()"
        )
        row: dict[str, Any] = cursor.fetchone() or {}
    facts = row["facts"]
    values = {"ENCODING": row["encoding"], "LC_COLLATE": facts["datcollate"], "LC_CTYPE": facts["datctype"]}
    # daticulocale in 15 and 16, datlocale (for either provider) since 17
    locale = facts.get("datlocale") or facts.get("daticulocale")
    if facts["datlocprovider"] == "i":
        values |= {"LOCALE_PROVIDER": "icu", "ICU_LOCALE": locale}
    elif facts["datlocprovider"] == "b":
        values |= {"LOCALE_PROVIDER": "builtin", "BUILTIN_LOCALE": locale}
    return [sql.SQL("{} {}").format(sql.SQL(key), sql.Literal(value)) for key, value in values.items()]


def _drop_leftovers(admin: Connection) -> None:
    """Scratch databases of runs that were killed; one still in use, or another role's, is left alone."""
    found = admin.execute("SELECT datname::text FROM pg_database WHERE starts_with(datname, %s)", [_PREFIX]).fetchall()
    for (name,) in found:
        match = _NAME.fullmatch(str(name))
        if match is None or time.time() - int(match["made_at"]) < LEFTOVER_AGE_S:
            continue
        with contextlib.suppress(psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege):
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(str(name))))
