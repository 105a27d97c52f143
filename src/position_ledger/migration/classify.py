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

    def __init__(self, code: Literal["mixed-file", "changing-default", "not-projectable"], message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Effect:
    """What one file does: ``tables`` are the projected tables that it found and whose columns or constraints it changes.

    ``made`` are those that it makes. A file that makes them and nothing else is projected too: they appear with their
    rows. One that makes other things besides runs in place, and the tables are filled right after. ``written`` are the
    other tables that it was there to find, whose rows it writes.
    ``is_elsewhere`` says that it does what no swap brings, ``is_here`` that it changes projected tables or views at all.
    """

    file: MigrationFile
    kind: Literal["plain", "projected"]
    tables: frozenset[str]
    views: frozenset[str]
    differences: tuple[str, ...]
    before: Catalogue
    after: Catalogue
    made: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()
    is_elsewhere: bool = False
    is_here: bool = False

    @property
    def may_move(self) -> bool:
        """Whether a plain file between two rebuilds may be brought about with them.

        One that only concerns projected tables and views is in the catalogue that the swap leads to; one that concerns
        none of them may run before.
        """
        return not self.is_elsewhere or (not self.is_here and self.file.is_transactional)


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
        return tuple(sorted((*self.plain, *self.files), key=lambda file: file.number))

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
    is_here = bool(views) or any(before.tables.get(name) != after.tables.get(name) for name in names)
    found = frozenset(written) & before.tables.keys()
    effect = replace(effect, written=found, is_elsewhere=bool(others), is_here=is_here)
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
        if effect.after.tables[name].unsupported:
            raise EffectRefused(
                "not-projectable",
                f"{effect.file.filename} gives the projected table {name} {', '.join(effect.after.tables[name].unsupported)}, "
                "which a rebuild cannot make again; leave it out",
            )
        for reason in unfit_for_projection(effect.after.tables[name]):
            raise EffectRefused(
                "changing-default",
                f"{effect.file.filename} makes the projected table {name} one that the log cannot fill again: "
                f"{reason}; take it away, or let the projection give the value",
            )


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def change_sets(effects: Iterable[Effect]) -> list[MigrationFile | ProjectedChange]:
    """Steps in the order of the files: each plain file alone, each run of projected ones as one change.

    A plain file between two that are projected belongs to the run if it may move: then one rebuild does for both.
    """
    steps: list[MigrationFile | ProjectedChange] = []
    between: list[Effect] = []
    for effect in effects:
        last = steps[-1] if steps else None
        if effect.kind == "plain" and isinstance(last, ProjectedChange):
            between.append(effect)
        elif effect.kind == "plain":
            steps.append(effect.file)
        elif isinstance(last, ProjectedChange) and all(one.may_move for one in between):
            steps[-1] = _joined(last, between, effect)
            between = []
        else:
            steps += [*(one.file for one in between), _change(effect)]
            between = []
    return steps + [one.file for one in between]


def sets_to_undo(effects: Iterable[Effect]) -> list[MigrationFile | ProjectedChange]:
    """The same for files that are rolled back, from the last step to the first.

    What only concerns tables that go away with them is undone in place, and so is a plain file that ran before its swap:
    after it, as the reverse order of steps has it.
    """
    steps: list[MigrationFile | ProjectedChange] = []
    for step in change_sets(effects):
        if not isinstance(step, ProjectedChange):
            steps.append(step)
        elif step.tables:
            steps += [*step.plain, replace(step, plain=())]
        else:
            steps += step.whole
    return steps


def _change(effect: Effect) -> ProjectedChange:
    return ProjectedChange((effect.file,), effect.tables, effect.views, effect.before, effect.after, effect.made)


def _joined(change: ProjectedChange, between: Iterable[Effect], effect: Effect) -> ProjectedChange:
    made = change.made | effect.made
    here = [one.file for one in between if not one.is_elsewhere]
    return ProjectedChange(
        (*change.files, *here, effect.file),
        (change.tables | effect.tables) - made,
        change.views | effect.views,
        change.before,
        effect.after,
        made,
        (*change.plain, *(one.file for one in between if one.is_elsewhere)),
    )
