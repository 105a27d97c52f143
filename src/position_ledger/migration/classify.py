"""Whether a migration needs the event history: judged by what it changes in the catalogue, not by how it is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from position_ledger.errors import MigrationError
from position_ledger.migration.catalogue import Catalogue, Table, diff
from position_ledger.migration.ddl import unfit_for_projection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from position_ledger.migration.files import MigrationFile

__all__ = ["Effect", "EffectRefused", "ProjectedChange", "change_sets", "classify", "sets_to_undo"]


class EffectRefused(MigrationError):
    """A file does what no swap can bring about; ``code`` is that of the finding in a plan."""

    def __init__(self, code: Literal["mixed-file", "changing-default"], message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Effect:
    """What one file does: ``tables`` are the projected tables that it found and whose columns or constraints it changes.

    ``made`` are those that it makes. A file that makes them and nothing else is projected too: they appear with their
    rows. One that makes other things besides runs in place, and the tables are filled right after.
    """

    file: MigrationFile
    kind: Literal["plain", "projected"]
    tables: frozenset[str]
    views: frozenset[str]
    differences: tuple[str, ...]
    before: Catalogue
    after: Catalogue
    made: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ProjectedChange:
    """Consecutive migrations that one rebuild takes from catalogue ``before`` to ``after``; its swap records them all.

    ``tables`` change and ``made`` come with them. ``views`` changed with them and are bound at the swap, to the
    definitions in ``after``. ``plain`` files belong to the same change set: they ran in place before, and become applied
    with it or are undone with it.
    """

    files: tuple[MigrationFile, ...]
    tables: frozenset[str]
    views: frozenset[str]
    before: Catalogue
    after: Catalogue
    made: frozenset[str] = frozenset()
    plain: tuple[MigrationFile, ...] = ()

    @property
    def whole(self) -> tuple[MigrationFile, ...]:
        """Every file of the change set, in order."""
        return (*self.plain, *self.files)

    @property
    def moved(self) -> tuple[str, ...]:
        """The tables that its swap moves, by name."""
        return tuple(sorted(self.tables | self.made))


def classify(
    file: MigrationFile, before: Catalogue, after: Catalogue, projected: Iterable[str], written: Iterable[str]
) -> Effect:
    """Judge a file by the catalogues before and after it and by the plain tables ``written`` to.

    Raises MigrationError for a file that changes projected tables and anything else, or that makes a projected table
    of which the log could not give the rows.
    """
    names = frozenset(projected)
    touched = frozenset(
        name for name in names if _structure(before.tables.get(name)) != _structure(after.tables.get(name))
    )
    tables = touched & before.tables.keys()
    views = frozenset(name for name in {*before.views, *after.views} if before.views.get(name) != after.views.get(name))
    effect = Effect(file, "plain", tables, views, tuple(diff(before, after)), before, after, touched - tables)
    others = _others(effect, names, sorted(written))
    if tables and others:
        _refuse_both(effect, others)
    _refuse_unfit(effect, touched)
    return replace(effect, kind="projected") if touched and not others else effect


def _structure(table: Table | None) -> object:
    """What only a rebuild may change; index, comment, grant, trigger, storage and statistics change in place."""
    if table is None:
        return None
    columns = {
        column.name: replace(
            column, comment=None, statistics_target=None, options=(), grants=(), storage=None, compression=""
        )
        for column in table.columns.values()
    }
    constraints = {each.name: replace(each, comment=None) for each in table.constraints.values()}
    return columns, constraints, table.unsupported


def _others(effect: Effect, projected: frozenset[str], written: list[str]) -> list[str]:
    """What a file does that no swap brings, in words."""
    return [
        *diff(_without(effect.before, projected), _without(effect.after, projected)),
        *(f"{thing} is new" for thing in effect.after.surroundings if thing not in effect.before.surroundings),
        *(f"{thing} is gone" for thing in effect.before.surroundings if thing not in effect.after.surroundings),
        *(f"rows of table {name} are written" for name in written),
    ]


def _refuse_both(effect: Effect, others: list[str]) -> None:
    number, filename = effect.file.number, effect.file.filename
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""  # noqa: PLR2004 - enough to find the place
    raise EffectRefused(
        "mixed-file",
        f"{filename} changes the projected table {_names(effect.tables)}, which is rebuilt from the log, and also "
        f"other things ({'; '.join(others[:3])}{more}); split it: everything else in {number:03}_…, "
        f"what concerns {_names(effect.tables)} in {number + 1:03}_…",
    )


def _without(catalogue: Catalogue, projected: frozenset[str]) -> Catalogue:
    """The part of a catalogue that no swap brings: views are bound at the swap, projected tables come with it."""
    tables = {name: table for name, table in catalogue.tables.items() if name not in projected}
    return replace(catalogue, tables=tables, views={})


def _refuse_unfit(effect: Effect, touched: Iterable[str]) -> None:
    for name in sorted(effect.after.tables.keys() & touched):
        for reason in unfit_for_projection(effect.after.tables[name]):
            raise EffectRefused(
                "changing-default",
                f"{effect.file.filename} makes the projected table {name} one that the log cannot fill again: "
                f"{reason}; take it away, or let the projection give the value",
            )


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def change_sets(effects: Iterable[Effect]) -> list[MigrationFile | ProjectedChange]:
    """Steps in the order of the files: each plain file alone, each run of projected ones as one change."""
    steps: list[MigrationFile | ProjectedChange] = []
    for effect in effects:
        last = steps[-1] if steps else None
        if effect.kind == "plain":
            steps.append(effect.file)
        elif isinstance(last, ProjectedChange):
            steps[-1] = _joined(last, effect)
        else:
            steps.append(_change(effect))
    return steps


def sets_to_undo(effects: Iterable[Effect]) -> list[MigrationFile | ProjectedChange]:
    """The same for files that are rolled back: what only concerns tables that go away with them is undone in place."""
    steps: list[MigrationFile | ProjectedChange] = []
    gone: set[str] = set()
    for effect in effects:
        gone |= effect.made
        last = steps[-1] if steps else None
        if effect.kind == "plain" or effect.tables | effect.made <= gone:
            steps.append(effect.file)
        elif isinstance(last, ProjectedChange):
            steps[-1] = _joined(last, effect)
        else:
            steps.append(_change(effect))
    return steps


def _change(effect: Effect) -> ProjectedChange:
    return ProjectedChange((effect.file,), effect.tables, effect.views, effect.before, effect.after, effect.made)


def _joined(change: ProjectedChange, effect: Effect) -> ProjectedChange:
    made = change.made | effect.made
    return ProjectedChange(
        (*change.files, effect.file),
        (change.tables | effect.tables) - made,
        change.views | effect.views,
        change.before,
        effect.after,
        made,
    )
