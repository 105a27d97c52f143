"""Roles in a scratch database: they belong to the whole cluster, so a replay meets those that the live files made.

What a replay wants to make and finds there counts as made; what it drops and other databases still use counts as dropped.
Neither touches the role. Only a block of code that fails on a role that is there runs again, with the role out of its
way under another name: therefore only in a transaction that never ends well.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from position_ledger.migration.execute import StatementFailed, run_statement

if TYPE_CHECKING:
    from psycopg import Cursor

    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.session import Connection
    from position_ledger.migration.sql_text import Statement

__all__ = ["run_beside_others", "state_of_cluster"]

_ABOUT_ROLES: Final = re.compile(r"\b(?:create|drop)\s+(?:role|user|group)\b", re.IGNORECASE)
_PLAIN: Final = frozenset((verb, kind) for verb in ("create", "drop") for kind in ("role", "user", "group"))
_QUOTED: Final = re.compile("[\"'«„“](.+)[\"'»“”]")
_ELSEWHERE: Final = re.compile(r"\d+ objects? in database .+|(?:owner of|privileges for) database .+")
# What outlives the scratch database: roles, who is a member of whom, settings of roles, tablespaces, rights on databases.
# Passwords nobody may read: for them, whether this transaction holds the lock that every change of a role takes.
_OF_THE_CLUSTER: Final = """
    SELECT md5(concat((SELECT string_agg(d.datacl::text, ',' ORDER BY d.oid) FROM pg_database d),
                      (SELECT string_agg(l.mode, ',') FROM pg_locks l
                        WHERE l.pid = pg_backend_pid() AND l.granted AND l.relation = 'pg_authid'::regclass
                          AND l.mode = 'RowExclusiveLock'),
                      (SELECT string_agg(r::text, ',' ORDER BY r.oid) FROM pg_roles r),
                      (SELECT string_agg(m::text, ',' ORDER BY m::text) FROM pg_auth_members m),
                      (SELECT string_agg(s::text, ',' ORDER BY s::text) FROM pg_db_role_setting s),
                      (SELECT string_agg(t.spcname, ',' ORDER BY t.oid) FROM pg_tablespace t)))
"""


def run_beside_others(
    cursor: Cursor[tuple[object, ...]], file: MigrationFile, statement: Statement, text: str = ""
) -> frozenset[str]:
    """Run one statement in the caller's transaction, which is never committed once a role has changed.

    Answers the roles that it would have made, were they not there. Raises StatementFailed for every other failure.
    """
    if _ABOUT_ROLES.search(statement.text) is None:
        run_statement(cursor, file, statement, text)
        return frozenset()
    try:
        with cursor.connection.transaction():
            run_statement(cursor, file, statement, text)
    except StatementFailed as error:
        there = _there_already(cursor, error)
        if there is None and not _is_used_elsewhere(error):
            raise
        if statement.words[:2] in _PLAIN or there is None:
            return frozenset() if there is None else frozenset({there})
        return _run_without(cursor, file, statement, there)
    return frozenset()


def _there_already(cursor: Cursor[tuple[object, ...]], error: StatementFailed) -> str | None:
    """The role that is there already, if that is why the statement failed."""
    diag = _diag(error)
    if (
        error.sqlstate != psycopg.errors.DuplicateObject.sqlstate
        or getattr(diag, "source_function", "") != "CreateRole"
    ):
        return None
    named = _QUOTED.search(diag.message_primary or "")
    found = cursor.execute("SELECT rolname::text FROM pg_roles WHERE rolname = %s", [named[1] if named else ""])
    row = found.fetchone()
    return str(row[0]) if row else None


def _is_used_elsewhere(error: StatementFailed) -> bool:
    """Whether a role stays only for what other databases of the cluster have of it."""
    diag = _diag(error)
    if getattr(diag, "source_function", "") != "DropRole" or not diag.message_detail:
        return False
    return all(_ELSEWHERE.fullmatch(line) for line in diag.message_detail.splitlines())


def _diag(error: StatementFailed) -> Any:
    return error.__cause__.diag if isinstance(error.__cause__, psycopg.Error) else None


def _run_without(
    cursor: Cursor[tuple[object, ...]], file: MigrationFile, statement: Statement, there: str
) -> frozenset[str]:
    """Run a block while the role that is in its way has another name."""
    hidden = f"position_ledger_scratch_{secrets.token_hex(6)}"
    cursor.execute(sql.SQL("ALTER ROLE {} RENAME TO {}").format(sql.Identifier(there), sql.Identifier(hidden)))
    return frozenset({there}) | run_beside_others(cursor, file, statement)


def state_of_cluster(connection: Connection) -> object:
    """Something that is another once this transaction changes what outlives its database."""
    return connection.execute(_OF_THE_CLUSTER).fetchone()
