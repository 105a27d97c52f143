"""What a projected table is: columns, business key and a fold for each kind of event. The engine does the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pkgutil import iter_modules
from traceback import extract_tb
from typing import Any, Generic, TypeVar

import msgspec

from position_ledger.domain.event import Event
from position_ledger.errors import ConfigurationError
from position_ledger.packages import import_part, import_told
from position_ledger.store.envelope import Recorded


class Row(msgspec.Struct, frozen=True, gc=False):
    """The columns of a projected table, in order, without those that the engine adds. Immutable."""


RowT = TypeVar("RowT", bound=Row)
Fold = Callable[[Any, Recorded[Any]], Any]
"""``(row | None, event) -> row``: the same object means «no new version»; None for an existing row is an error."""

SURROGATE = "id"
LEADING_COLUMNS = ("row_current_ind", "row_effective_date", "row_expiration_date", "version", "effective_at")
"""What the engine adds after the surrogate id and the business key."""


@dataclass(frozen=True, eq=False)
class Projection(Generic[RowT]):
    """One projected table: a frozen value, collected from modules, never registered.

    ``key`` gives the business key of the row that an event changes; one event changes at most one row of a table,
    and all events of one key come from one stream. ``folds`` maps each event type to the function that makes the new
    row; events that are not in it do not concern the table.
    """

    table: str
    key_column: str
    key: Callable[[Recorded[Any]], str]
    row: type[RowT]
    folds: Mapping[type[Event], Fold]

    def __post_init__(self) -> None:
        """Check the definition; a wrong one never reaches a table."""
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,50}", self.table):
            self._refuse(f"table {self.table!r} is not a plain lower-case name")
        row: Any = self.row
        if not (isinstance(row, type) and issubclass(row, Row)):
            self._refuse("row must be a subclass of position_ledger.Row")
        clash = {SURROGATE, self.key_column, *LEADING_COLUMNS} & set(self.row.__struct_fields__)
        if clash:
            self._refuse(f"row has {', '.join(sorted(clash))}, which the engine adds itself")
        if not self.folds:
            self._refuse("folds is empty, so no event would ever make a row")

    def _refuse(self, problem: str) -> None:
        msg = f"projection {self.table}: {problem}"
        raise ConfigurationError(msg)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All columns of the table in order: surrogate, key, SCD2, then those of the row type."""
        return (SURROGATE, self.key_column, *LEADING_COLUMNS, *self.row.__struct_fields__)

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """Topics of the events that concern the table, sorted."""
        return tuple(sorted(event.TOPIC for event in self.folds))

    @cached_property
    def folds_by_topic(self) -> dict[str, Fold]:
        """The folds by the topic of their event."""
        return {event.TOPIC: fold for event, fold in self.folds.items()}


def load_projections(package_name: str) -> tuple[Projection[Any], ...]:
    """Import a package, or a folder by its absolute path, and collect every `Projection` of its modules, by table.

    Raises:
        ConfigurationError: it cannot be imported, defines none, or two of them claim one table.
    """
    try:
        package = import_told(package_name)
        modules = [import_part(package, info.name) for info in iter_modules(getattr(package, "__path__", []))]
    except ImportError as error:
        msg = f"setting projections: cannot import {package_name!r}: {error}"
        raise ConfigurationError(msg) from error
    except ConfigurationError:
        raise
    except Exception as error:  # whatever a team's module raises is told with its place
        msg = f"setting projections: {package_name!r} fails when it is imported: {_place_of(error, package_name)}"
        raise ConfigurationError(msg) from error
    found: dict[str, Projection[Any]] = {}
    for module in (package, *modules):
        for value in vars(module).values():
            if not isinstance(value, Projection):
                continue
            if found.setdefault(value.table, value) is not value:
                msg = f"setting projections: {package_name!r} defines table {value.table!r} twice"
                raise ConfigurationError(msg)
    if not found:
        msg = f"setting projections: {package_name!r} defines no projection"
        raise ConfigurationError(msg)
    return tuple(found[table] for table in sorted(found))


def _place_of(error: Exception, package_name: str) -> str:
    """The error with the last line of the team's own that led to it."""
    own = [frame for frame in extract_tb(error.__traceback__) if package_name.rpartition("/")[0] in frame.filename]
    place = f"{own[-1].filename} line {own[-1].lineno}: " if own and package_name.startswith("/") else ""
    return f"{place}{type(error).__name__}: {error}"
