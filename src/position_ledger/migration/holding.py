"""What tables hold of functions, types and the like: as long as they do, the server lets none of it be dropped.

A retired table is held to what it was made with. So a file that drops a function or a type may run on every table that
readers see, and stop at one that is kept only to go back to. Foreign keys and checks do not hold anything: a table loses
those that its successor does not have when it retires.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from position_ledger.migration.classify import ProjectedChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.session import Connection

__all__ = ["Held", "Moment", "Thing", "in_the_way", "look"]

Thing: TypeAlias = tuple[int, int]
"""A function, type, collation or operator of one database: the oid of its catalogue, and its own."""

_CLASSES: Final = """
    ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_collation'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass,
     'pg_ts_config'::regclass)
"""
_FIRST_OURS: Final = 16384
"""Objects below this oid came with the server."""

_NAME: Final = "SELECT i.type || ' ' || replace(i.identity, 'pg_catalog.', '') FROM pg_identify_object({}, {}, 0) AS i"
_THINGS: Final = f"""
    SELECT o.class::bigint, o.oid::bigint, ({_NAME.format("o.class", "o.oid")}) FROM (
           SELECT tableoid AS class, oid FROM pg_proc UNION ALL SELECT tableoid, oid FROM pg_collation
           UNION ALL SELECT tableoid, oid FROM pg_operator UNION ALL SELECT tableoid, oid FROM pg_opclass
           UNION ALL SELECT tableoid, oid FROM pg_ts_config
           UNION ALL SELECT tableoid, oid FROM pg_type WHERE typtype <> 'c' AND typcategory <> 'A') AS o
     WHERE o.oid >= {_FIRST_OURS}
"""
_HELD: Final = f"""
    WITH part AS (
        SELECT c.oid AS relation, 'pg_class'::regclass AS class, c.oid, true AS stays FROM pg_class AS c
        UNION ALL SELECT i.indrelid, 'pg_class'::regclass, i.indexrelid, true FROM pg_index AS i
        UNION ALL SELECT d.adrelid, 'pg_attrdef'::regclass, d.oid, true FROM pg_attrdef AS d
        UNION ALL SELECT t.tgrelid, 'pg_trigger'::regclass, t.oid, true FROM pg_trigger AS t
        UNION ALL SELECT p.polrelid, 'pg_policy'::regclass, p.oid, true FROM pg_policy AS p
        UNION ALL SELECT s.stxrelid, 'pg_statistic_ext'::regclass, s.oid, true FROM pg_statistic_ext AS s
        UNION ALL SELECT k.conrelid, 'pg_constraint'::regclass, k.oid, k.contype NOT IN ('c', 'f') FROM pg_constraint AS k)
    SELECT d.refclassid::bigint, coalesce(nullif(y.typelem, 0), d.refobjid)::bigint, bool_or(p.stays)
      FROM part AS p JOIN pg_depend AS d ON d.classid = p.class AND d.objid = p.oid
      LEFT JOIN pg_type AS y ON d.refclassid = 'pg_type'::regclass AND y.oid = d.refobjid AND y.typcategory = 'A'
     WHERE p.relation = to_regclass(format('%%I.%%I', %s::text, %s::text))
       AND d.refclassid IN {_CLASSES} AND d.refobjid >= {_FIRST_OURS}
     GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """One state of a database: what there is, with its name, and what of it each table uses.

    ``kept`` is what a table goes on using when it retires.
    """

    things: Mapping[Thing, str] = field(default_factory=dict)
    used: Mapping[str, AbstractSet[Thing]] = field(default_factory=dict)
    kept: Mapping[str, AbstractSet[Thing]] = field(default_factory=dict)

    def names_kept(self, table: str) -> AbstractSet[str]:
        """What a table goes on using, by name: as it is called in another database too."""
        return {self.things[thing] for thing in self.kept.get(table, ()) if thing in self.things}


@dataclass(frozen=True, slots=True)
class Held:
    """A file drops a thing that a table uses: the retired one, or the live one, of which its change set takes it later."""

    file: MigrationFile
    table: str
    thing: str
    is_retired: bool


def look(connection: Connection, tables: Mapping[str, str]) -> Moment:
    """What there is, and what ``tables`` use of it; each is given with the schema that it is in, and may be missing."""
    listed: list[Any] = connection.execute(_THINGS).fetchall()
    things = {(class_, oid): name for class_, oid, name in listed}
    rows: dict[str, list[Any]] = {
        table: connection.execute(_HELD, [schema, table]).fetchall() for table, schema in tables.items()
    }
    return Moment(
        things,
        {table: {(class_, oid) for class_, oid, _ in found} for table, found in rows.items()},
        {table: {(class_, oid) for class_, oid, stays in found if stays} for table, found in rows.items()},
    )


def in_the_way(
    steps: Sequence[MigrationFile | ProjectedChange],
    moments: Mapping[int, Moment],
    retired: Mapping[str, AbstractSet[str]],
) -> Iterator[Held]:
    """What the files of the steps drop while a table uses it: the server would refuse that.

    ``moments`` has the state before each file by its number, and that after the last by the next one; ``retired`` what
    the tables that are retired now go on using, by name. A swap retires the table before it, and drops the one retired
    before that; plain files of a change set run before its swap.
    """
    numbers = {name: thing for thing, name in moments[min(moments)].things.items()}
    kept: dict[str, AbstractSet[Thing]] = {
        table: {numbers[name] for name in names if name in numbers} for table, names in retired.items()
    }
    for step in steps:
        if not isinstance(step, ProjectedChange):
            yield from _dropped(step, moments, kept, is_retired=True)
            continue
        before = moments[step.files[0].number]
        live = {table: before.used.get(table, frozenset()) for table in step.tables}
        for file in step.plain:
            yield from _dropped(file, moments, live, is_retired=False)
            yield from _dropped(file, moments, kept, is_retired=True)
        kept |= {table: before.kept.get(table, frozenset()) for table in step.tables}


def _dropped(
    file: MigrationFile, moments: Mapping[int, Moment], using: Mapping[str, AbstractSet[Thing]], *, is_retired: bool
) -> Iterator[Held]:
    before, after = moments[file.number].things, moments[file.number + 1].things
    for table, things in sorted(using.items()):
        for thing in sorted(things & (before.keys() - after.keys())):
            yield Held(file, table, before[thing], is_retired)
