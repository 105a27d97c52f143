"""A team's releases, one after the other: its projected tables as code, and the migrations that lead to them.

Each release is a folder of definitions beside a folder of migrations that holds those of the releases before it as well.
What a fold gives is put together from text, as a team would write it, so that old and new code run side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.support.migration_files import migration_text
from tests.support.rebuilding import last_number, shipped_migrations

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger.settings import Settings

MODULE = """
from decimal import Decimal
from position_ledger import Projection, Recorded, Row, replace
from position_ledger.events import (
    PositionClosed, PositionIncreased, PositionMarked, PositionOpened, PositionReduced, PositionSettled,
)
from position_ledger.reference.projections.positions import POSITIONS

__all__ = ["POSITIONS"]


def key(event):
    return f"POS-{{event.opened_seq}}"


{tables}
"""
TABLE = """
class {name}Row(Row, frozen=True, gc=False):
{fields}


def {table}_first(row, event):
    return {name}Row({first})


def {table}_next(row, event):
    return replace(row, {next})


{upper} = Projection(
    table="{table}", key_column="{key}", key=key, row={name}Row,
    folds={{PositionOpened: {table}_first, {events}}},
)
"""
FILLS = ("PositionIncreased", "PositionReduced", "PositionClosed", "PositionSettled")
SCD2 = """
    id bigint NOT NULL, {key} text NOT NULL, row_current_ind boolean NOT NULL, row_effective_date timestamptz NOT NULL,
    row_expiration_date timestamptz, version {version} NOT NULL, effective_at timestamptz NOT NULL, {columns},
    CONSTRAINT {table}_pkey PRIMARY KEY (id),
    CONSTRAINT {table}_one_row_a_version UNIQUE ({key}, version),
    CONSTRAINT {table}_interval_not_empty CHECK (row_expiration_date > row_effective_date)
"""


@dataclass(frozen=True)
class Table:
    """A definition: the fields of the row type, and what the folds give, as text."""

    table: str
    fields: dict[str, str]
    first: dict[str, str]
    next: dict[str, str]
    key: str = "holding_id"
    events: tuple[str, ...] = FILLS

    @property
    def source(self) -> str:
        """The module text of the definition."""
        return TABLE.format(
            table=self.table,
            name=self.table.capitalize(),
            upper=self.table.upper(),
            key=self.key,
            fields="\n".join(f"    {name}: {kind}" for name, kind in self.fields.items()),
            first=", ".join(f"{name}={self.first[name]}" for name in self.fields),
            next=", ".join(f"{name}={value}" for name, value in self.next.items()),
            events=", ".join(f"{one}: {self.table}_next" for one in self.events),
        )

    def with_field(self, name: str, kind: str, first: str, following: str | None = None) -> Table:
        """One more column, or one that is computed differently now."""
        return replace(
            self,
            fields={**self.fields, name: kind},
            first={**self.first, name: first},
            next={**self.next, **({name: following} if following else {})},
        )

    def without(self, name: str) -> Table:
        """A column less."""
        return replace(self, **{  # type: ignore[arg-type]
            part: {known: value for known, value in getattr(self, part).items() if known != name}
            for part in ("fields", "first", "next")
        })  # fmt: skip

    def create(self, columns: str, *, version: str = "bigint") -> str:
        """The statements of the migration that makes it."""
        body = SCD2.format(key=self.key, columns=columns, table=self.table, version=version)
        return (
            f"CREATE TABLE {self.table} ({body});\n"
            f"CREATE UNIQUE INDEX {self.table}_one_current_row ON {self.table} ({self.key}) WHERE row_current_ind;\n"
            f"GRANT SELECT ON {self.table} TO position_ledger_reader, position_ledger_projector;\n"
            f"GRANT INSERT ON {self.table} TO position_ledger_projector;\n"
            f"GRANT UPDATE (row_current_ind, row_expiration_date) ON {self.table} TO position_ledger_projector;"
        )


HOLDINGS = Table(
    "holdings",
    {"environment": "str", "size": "str", "fills": "int", "label": "str | None"},
    {
        "environment": "event.body.environment",
        "size": 'f"{event.body.figures.quantity:f}"',
        "fills": "1",
        "label": "None",
    },
    {"size": 'f"{event.body.figures.quantity:f}"', "fills": "row.fills + 1"},
)
HOLDINGS_COLUMNS = (
    "environment text NOT NULL, size varchar(60) NOT NULL,"
    " fills integer NOT NULL CONSTRAINT holdings_fills_count CHECK (fills > 0), label text"
)
VALUATIONS = Table(
    "valuations",
    {"price": "Decimal", "marks": "int"},
    {"price": "event.body.fill.price", "marks": "0"},
    {"price": "event.body.price", "marks": "row.marks + 1"},
    key="valuation_id",
    events=("PositionMarked",),
)
VALUATIONS_COLUMNS = "price numeric(38,18) NOT NULL, marks integer NOT NULL"


class Releases:
    """The releases of one team, in a folder of a test."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._migrations = shipped_migrations(settings, folder)
        self._number = last_number(settings)
        self._releases = 0

    @property
    def last(self) -> int:
        """The number of the last migration so far."""
        return self._number

    def add(self, forward: str, rollback: str = "SELECT 1;", verify: str = "SELECT true;", **more: object) -> int:
        """One more migration; answers its number."""
        self._number += 1
        text = migration_text(self._number, forward, verify, rollback, **more)  # type: ignore[arg-type]
        (self._migrations / f"{self._number:03}_step.sql").write_text(text, "utf-8")
        return self._number

    def release(self, *tables: Table) -> Settings:
        """The settings of a release that has positions and these tables, and every migration that was added so far."""
        self._releases += 1
        folder = self._folder / f"release_{self._releases}"
        folder.mkdir()
        source = MODULE.format(tables="\n".join(table.source for table in tables))
        (folder / f"tables_{self._releases}.py").write_text(source, "utf-8")
        migrations = self._folder / f"migrations_{self._releases}"
        migrations.mkdir()
        for file in self._migrations.glob("*.sql"):
            (migrations / file.name).write_bytes(file.read_bytes())
        told = {"projections": str(folder), "migrations": str(migrations), "backup_policy": "off"}
        return self._settings.model_copy(update=told)
