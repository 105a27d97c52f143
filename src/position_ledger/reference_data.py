"""Reference data: strategies, probability models, platforms and market events, one row for each version of them.

Their config never changes, because positions say under which one they were made: a change is a new version, a row with
an id of its own. What exists is checked before a command is appended; a table without rows is not in use and checks
nothing. Rows are never deleted, they are deprecated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter, ValidationError

from position_ledger.database import translated
from position_ledger.domain.fields import Metadata, RowId, Text
from position_ledger.domain.rejections import shown
from position_ledger.errors import ReferenceRefused
from position_ledger.execution.references import KEY_COLUMNS

__all__ = ["TABLES", "Reference", "ReferenceData", "ReferenceStatus"]

Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]

TABLES: Final = tuple(KEY_COLUMNS)
NUMBERED: Final = frozenset({"strategies", "probability_models"})
"""Tables whose ids are numbers; the others have ids in words, given by whoever enters the row."""
ROW_ID: Final = TypeAdapter[int](RowId)
TEXT: Final = TypeAdapter[str](Text)
CONFIG: Final = TypeAdapter[dict[str, Any]](Metadata)


class ReferenceStatus(StrEnum):
    """draft -> testing -> active <-> inactive; a test may go back to draft; deprecated is the end."""

    DRAFT = "draft"
    TESTING = "testing"
    ACTIVE = "active"
    INACTIVE = "inactive"
    DEPRECATED = "deprecated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One row of a reference table: one version of a strategy, model, platform or market event. Times are UTC."""

    table: str
    id: int | str
    name: str
    version: str
    config: Mapping[str, Any]
    status: str
    notes: str | None
    created_at: datetime
    status_changed_at: datetime


COLUMNS: Final = SQL("name, version, config, status, notes, created_at, status_changed_at")
INSERT: Final = SQL(
    "INSERT INTO {table} ({key}, name, version, config, status, notes) "
    "VALUES (%(id)s, %(name)s, %(version)s, %(config)s, %(status)s, %(notes)s) RETURNING {key} AS id, {columns}"
)
SELECT: Final = SQL(
    "SELECT {key} AS id, {columns} FROM {table} "
    "WHERE (%(id)s::{type} IS NULL OR {key} = %(id)s) AND (%(name)s::text IS NULL OR name = %(name)s) "
    "AND (%(status)s::text IS NULL OR status = %(status)s) ORDER BY name, created_at, {key}"
)
SET_STATUS: Final = SQL("UPDATE {table} SET status = %(status)s WHERE {key} = %(id)s RETURNING {key} AS id, {columns}")
SET_NOTES: Final = SQL("UPDATE {table} SET notes = %(notes)s WHERE {key} = %(id)s RETURNING {key} AS id, {columns}")


class ReferenceData:
    """The reference tables of a ledger; found as ``ledger.reference``. Every change is one statement of its own.

    All methods raise `ReferenceRefused` for what the tables do not take, naming table, field and value.
    """

    def __init__(self, connect: Connect, changed: Callable[[], None]) -> None:
        """``changed`` is called after a row was added, so that this process knows it at once."""
        self._connect = connect
        self._changed = changed

    def add(
        self,
        table: str,
        name: str,
        *,
        id: int | str | None = None,  # noqa: A002 - what it is called everywhere
        version: str = "1",
        config: Mapping[str, Any] | None = None,
        status: ReferenceStatus | str | None = None,
        notes: str | None = None,
    ) -> Reference:
        """Enter a row; without an ``id`` strategies and models are numbered, status None is draft for these two.

        Platforms and market events have ids in words, which must be given, and are active at once.
        """
        first = ReferenceStatus.DRAFT if table in NUMBERED else ReferenceStatus.ACTIVE
        fields = {
            "id": _id(_table(table), id, may_be_none=table in NUMBERED),
            "name": _text("name", name),
            "version": _text("version", version),
            "config": _config({} if config is None else config),
            "status": first if status is None else _status(status),
            "notes": None if notes is None else _text("notes", notes),
        }
        row = self._one(table, INSERT, fields)
        self._changed()
        return row

    def add_strategy(self, name: str, **fields: Any) -> Reference:
        """Enter a strategy; fields as for `add`."""
        return self.add("strategies", name, **fields)

    def add_model(self, name: str, **fields: Any) -> Reference:
        """Enter a probability model; fields as for `add`."""
        return self.add("probability_models", name, **fields)

    def add_platform(self, id: str, name: str | None = None, **fields: Any) -> Reference:  # noqa: A002 - as in add
        """Enter a platform under the id that positions name it by; fields as for `add`."""
        return self.add("platforms", id if name is None else name, id=id, **fields)

    def add_market_event(self, id: str, name: str | None = None, **fields: Any) -> Reference:  # noqa: A002 - as in add
        """Enter what markets are about, under the id that they name it by; fields as for `add`."""
        return self.add("market_events", id if name is None else name, id=id, **fields)

    def new_version(
        self,
        table: str,
        of: int | str,
        *,
        version: str,
        config: Mapping[str, Any],
        id: int | str | None = None,  # noqa: A002 - as in add
        status: ReferenceStatus | str | None = None,
        notes: str | None = None,
    ) -> Reference:
        """Enter another version of a row: the same name with another config; the row before stays as it is."""
        return self.add(
            table, self.get(table, of).name, id=id, version=version, config=config, status=status, notes=notes
        )

    def set_status(self, table: str, id: int | str, status: ReferenceStatus | str) -> Reference:  # noqa: A002 - as in add
        """Move a row on in its life; the status that it has already is no change."""
        return self._one(table, SET_STATUS, {"id": _id(_table(table), id), "status": _status(status)})

    def set_notes(self, table: str, id: int | str, notes: str | None) -> Reference:  # noqa: A002 - as in add
        """Write other notes."""
        told = None if notes is None else _text("notes", notes)
        return self._one(table, SET_NOTES, {"id": _id(_table(table), id), "notes": told})

    def get(self, table: str, id: int | str) -> Reference:  # noqa: A002 - as in add
        """One row by its id."""
        return self._one(table, SELECT, {"id": _id(_table(table), id), "name": None, "status": None})

    def list(
        self, table: str, *, name: str | None = None, status: ReferenceStatus | str | None = None
    ) -> tuple[Reference, ...]:
        """Rows by name, the versions of each in the order in which they were entered."""
        wanted = {"id": None, "name": name, "status": None if status is None else _status(status)}
        return tuple(self._rows(_table(table), SELECT, wanted))

    def _one(self, table: str, statement: SQL, fields: Mapping[str, Any]) -> Reference:
        row = next(iter(self._rows(_table(table), statement, fields)), None)
        if row is None:
            raise ReferenceRefused(f"{KEY_COLUMNS[table]} {shown(fields['id'])} is not in {table}; list them first")
        return row

    def _rows(self, table: str, statement: SQL, fields: Mapping[str, Any]) -> Sequence[Reference]:
        with translated(), self._connect() as connection, _refusals(table, fields):
            cursor = connection.cursor(row_factory=dict_row)
            found = cursor.execute(_composed(statement, table), fields).fetchall()
        return [Reference(table=table, **row) for row in found]


def _composed(statement: SQL, table: str) -> Composed:
    kind = SQL("bigint") if table in NUMBERED else SQL("text")
    return statement.format(table=Identifier(table), key=Identifier(KEY_COLUMNS[table]), columns=COLUMNS, type=kind)


@contextmanager
def _refusals(table: str, fields: Mapping[str, Any]) -> Iterator[None]:
    """What the constraints and triggers say, in words."""
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name == f"{table}_pkey":
            what = (
                f"{KEY_COLUMNS[table]} {shown(fields['id'])} is taken in {table}; a change is a version of its own id"
            )
        else:
            what = f"{table} has {shown(fields['name'])} in version {shown(fields['version'])} already; name another"
        raise ReferenceRefused(what) from error
    except psycopg.errors.CheckViolation as error:
        what = f"{error.diag.message_primary}; draft, testing, active and inactive lead on, deprecated is the end"
        raise ReferenceRefused(what) from error


# Checks of fields: what the database would refuse too, in words that name the field


def _table(table: str) -> str:
    if table not in KEY_COLUMNS:
        raise ReferenceRefused(f"table {shown(table)} is no reference table; there are {', '.join(TABLES)}")
    return table


def _id(table: str, value: object, *, may_be_none: bool = False) -> int | str | None:
    if value is None and may_be_none:
        return None
    if table not in NUMBERED:
        return _text(KEY_COLUMNS[table], value)
    try:
        return ROW_ID.validate_python(value)
    except ValidationError:
        what = f"{KEY_COLUMNS[table]} is {shown(value)}; it must be a whole number from 1"
        raise ReferenceRefused(what) from None


def _text(field: str, value: object) -> str:
    try:
        return TEXT.validate_python(value)
    except ValidationError:
        raise ReferenceRefused(f"{field} is {shown(value)}; it must be text of 1 to 1000 characters") from None


def _status(value: object) -> ReferenceStatus:
    try:
        return ReferenceStatus(str(value))
    except ValueError:
        known = ", ".join(ReferenceStatus)
        raise ReferenceRefused(f"status is {shown(value)}; it must be one of {known}") from None


def _config(value: Mapping[str, Any]) -> Jsonb:
    try:
        return Jsonb(CONFIG.validate_python(value))
    except ValidationError:
        what = f"config is {shown(value)}; it must be an object of plain JSON values, exact numbers written as text"
        raise ReferenceRefused(what) from None
