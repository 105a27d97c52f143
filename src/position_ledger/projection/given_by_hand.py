"""What somebody said of the live table beside the migrations, as statements for the one that takes its place.

Comments, options, statistics targets, storage, replica identity and cluster index, of the table, its columns, indexes
and constraints: nothing that looks at a row, so that all of it fits into a swap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from psycopg import sql
from psycopg.sql import SQL, Identifier, Literal

from position_ledger.migration.attached import Attached
from position_ledger.migration.catalogue import Catalogue, Column, Table

Statement = SQL | sql.Composed

STORAGE: Final = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
COMPRESSION: Final = {"p": "pglz", "l": "lz4", "": "default"}
IDENTITY: Final = {"f": "FULL", "n": "NOTHING"}


def by_hand(before: Catalogue, after: Catalogue, attached: Attached, name: Identifier) -> list[Statement]:
    """The statements; ``before`` and ``after`` are what the migrations make of the live table and of the new one."""
    live = attached.live
    made, new = before.tables.get(live.name), after.tables.get(live.name)
    if made is None or new is None:
        return []
    kept = [column for column in live.columns.values() if column.name in made.columns and column.name in new.columns]
    return [
        *_of_table(live, made, name),
        *(one for column in kept for one in _of_column(column, made.columns[column.name], name)),
        *_of_indexes(live, made, new),
        *_of_parts(live, made, new, name),
        *_settled(attached, new, name),
    ]


def _of_table(live: Table, made: Table, name: Identifier) -> Iterator[Statement]:
    if live.comment != made.comment:
        yield SQL("COMMENT ON TABLE {} IS {}").format(name, Literal(live.comment))
    own = [option for option in live.options if option not in made.options]
    if own:
        yield SQL("ALTER TABLE {} SET ({})").format(name, SQL(", ".join(own)))


def _of_column(live: Column, made: Column, name: Identifier) -> Iterator[Statement]:
    column = Identifier(live.name)

    def set_(what: Any) -> Statement:
        return SQL("ALTER TABLE {} ALTER COLUMN {} SET {}").format(name, column, what)

    if live.comment != made.comment:
        yield SQL("COMMENT ON COLUMN {}.{} IS {}").format(name, column, Literal(live.comment))
    if live.statistics_target != made.statistics_target:
        target = -1 if live.statistics_target is None else live.statistics_target
        yield set_(SQL("STATISTICS {}").format(Literal(target)))
    own = [option for option in live.options if option not in made.options]
    if own:
        yield set_(SQL("({})").format(SQL(", ".join(own))))
    if live.storage != made.storage and live.type == made.type and live.storage is not None:
        yield set_(SQL("STORAGE {}").format(SQL(STORAGE[live.storage])))
    if live.compression != made.compression and live.type == made.type:
        yield set_(SQL("COMPRESSION {}").format(SQL(COMPRESSION[live.compression])))


def _of_indexes(live: Table, made: Table, new: Table) -> Iterator[Statement]:
    """Unqualified: the swap has the schema of the live tables on its path."""
    for index in live.indexes.values():
        known = made.indexes.get(index.name)
        if known is None or index.name not in new.indexes:
            continue
        own = [option for option in index.options if option not in known.options]
        if own:
            yield SQL("ALTER INDEX {} SET ({})").format(Identifier(index.name), SQL(", ".join(own)))
        for number, target in index.statistics_targets:
            if (number, target) not in known.statistics_targets:
                yield SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}").format(
                    Identifier(index.name), Literal(number), Literal(target)
                )
        if index.comment != known.comment:
            yield SQL("COMMENT ON INDEX {} IS {}").format(Identifier(index.name), Literal(index.comment))


def _of_parts(live: Table, made: Table, new: Table, name: Identifier) -> Iterator[Statement]:
    parts: list[tuple[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = [
        ("CONSTRAINT", live.constraints, made.constraints, new.constraints),
        ("TRIGGER", live.triggers, made.triggers, new.triggers),
    ]
    for kind, ours, theirs, left in parts:
        for part, one in ours.items():
            if part in theirs and part in left and one.comment != theirs[part].comment:
                place = (SQL(kind), Identifier(part), name, Literal(one.comment))
                yield SQL("COMMENT ON {} {} ON {} IS {}").format(*place)


def _settled(attached: Attached, new: Table, name: Identifier) -> Iterator[Statement]:
    settled = attached.settled
    if settled.replica_identity in IDENTITY:
        yield SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(name, SQL(IDENTITY[settled.replica_identity]))
    if settled.replica_identity == "i" and settled.identity_index is not None and settled.identity_index in new.indexes:
        yield SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}").format(name, Identifier(settled.identity_index))
    if settled.cluster_index is not None and settled.cluster_index in new.indexes:
        yield SQL("ALTER TABLE {} CLUSTER ON {}").format(name, Identifier(settled.cluster_index))
