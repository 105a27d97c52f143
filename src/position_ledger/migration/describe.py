"""What the server makes of one statement without running it: Parse and Describe of the extended protocol.

Names, types and operators are resolved against the catalogue, no row is read or written and no lock outlives the call,
so that a statement that deletes can be described on a live ledger. Rights are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.pq import DiagnosticField, ExecStatus

from position_ledger.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection
    from psycopg.pq.abc import PGresult

__all__ = ["Described", "Refused", "ResultColumn", "describe"]


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One column of the result; ``table_oid`` and ``column_number`` are 0 for what is computed."""

    name: str
    type_oid: int
    table_oid: int
    column_number: int


@dataclass(frozen=True, slots=True)
class Described:
    """A statement that fits the schema: the type of each parameter ($1 first) and its result."""

    parameter_oids: tuple[int, ...]
    columns: tuple[ResultColumn, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A statement that does not fit: the server's sentence and hint; ``offset`` in its text, None where it has none."""

    sentence: str
    sqlstate: str
    offset: int | None


def describe(connection: Connection[Any], statement: str, parameter_oids: Sequence[int] = ()) -> Described | Refused:
    """Let the server parse one statement with $1, $2 … in it; a parameter of oid 0 gets the type that it is used as.

    Outside a transaction: a refusal would abort it. Of a utility statement (CREATE, LOCK …) only the grammar is looked at.

    Raises:
        DatabaseUnavailable: the connection was lost.
    """
    pgconn = connection.pgconn
    prepared = pgconn.prepare(b"", statement.encode(), list(parameter_oids) or None)
    if prepared.status != ExecStatus.COMMAND_OK:
        return _refused(prepared)
    described = pgconn.describe_prepared(b"")
    if described.status != ExecStatus.COMMAND_OK:
        return _refused(described)
    return Described(
        tuple(described.param_type(number) for number in range(described.nparams)),
        tuple(
            ResultColumn(
                (described.fname(number) or b"").decode(),
                described.ftype(number),
                described.ftable(number),
                described.ftablecol(number),
            )
            for number in range(described.nfields)
        ),
    )


def _refused(result: PGresult) -> Refused:
    sqlstate = _field(result, DiagnosticField.SQLSTATE)
    if not sqlstate:  # no answer of the server, so of libpq
        msg = "the connection was lost while a statement was described: run the command again"
        raise DatabaseUnavailable(msg)
    sentence, hint = _field(result, DiagnosticField.MESSAGE_PRIMARY), _field(result, DiagnosticField.MESSAGE_HINT)
    place = _field(result, DiagnosticField.STATEMENT_POSITION)
    return Refused(f"{sentence} ({hint})" if hint else sentence, sqlstate, int(place) - 1 if place else None)


def _field(result: PGresult, field: DiagnosticField) -> str:
    return " ".join((result.error_field(field) or b"").decode(errors="replace").split())
