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
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.session import Connection

__all__ = ["Held", "Moment", "Thing", "in_the_way", "look", "redefined"]

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
    SELECT o.class::bigint, o.oid::bigint, ({_NAME.format("o.class", "o.oid")}),
           (SELECT md5(pg_get_functiondef(p.oid)) FROM pg_proc AS p
             WHERE o.class = 'pg_proc'::regclass AND p.oid = o.oid AND p.prokind <> 'a') FROM (
           SELECT tableoid AS class, oid FROM pg_proc UNION ALL SELECT tableoid, oid FROM pg_collation
           UNION ALL SELECT tableoid, oid FROM pg_operator UNION ALL SELECT tableoid, oid FROM pg_opclass
           UNION ALL SELECT tableoid, oid FROM pg_ts_config
           UNION ALL SELECT tableoid, oid FROM pg_type WHERE typtype <> 'c' AND typcategory <> 'A') AS o
     WHERE o.oid >= {_FIRST_OURS}
"""
_HELD: Final = f"""
    WITH part AS (
        SELECT c.oid AS relation, 'pg_class'::regclass AS class, c.oid, true AS stays, false AS tells FROM pg_class AS c
        UNION ALL SELECT i.indrelid, 'pg_class'::regclass, i.indexrelid, true, true FROM pg_index AS i
        UNION ALL SELECT d.adrelid, 'pg_attrdef'::regclass, d.oid, true, true FROM pg_attrdef AS d
        UNION ALL SELECT t.tgrelid, 'pg_trigger'::regclass, t.oid, true, false FROM pg_trigger AS t
        UNION ALL SELECT p.polrelid, 'pg_policy'::regclass, p.oid, true, false FROM pg_policy AS p
        UNION ALL SELECT s.stxrelid, 'pg_statistic_ext'::regclass, s.oid, true, false FROM pg_statistic_ext AS s
        UNION ALL SELECT k.conrelid, 'pg_constraint'::regclass, k.oid, k.contype NOT IN ('c', 'f'), true
                    FROM pg_constraint AS k)
    SELECT d.refclassid::bigint, coalesce(nullif(y.typelem, 0), d.refobjid)::bigint, bool_or(p.stays), bool_or(p.tells)
      FROM part AS p JOIN pg_depend AS d ON d.classid = p.class AND d.objid = p.oid
      LEFT JOIN pg_type AS y ON d.refclassid = 'pg_type'::regclass AND y.oid = d.refobjid AND y.typcategory = 'A'
     WHERE p.relation = to_regclass(format('%%I.%%I', %s::text, %s::text))
       AND d.refclassid IN {_CLASSES} AND d.refobjid >= {_FIRST_OURS}
     GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """One state of a database: what there is, with its name, and what of it each table uses.

    ``kept`` is what a table goes on using when it retires; ``told`` what says which rows are right: called by its checks,
    indexes and generated columns. ``bodies`` has a digest of each function.
    """

    things: Mapping[Thing, str] = field(default_factory=dict)
    bodies: Mapping[Thing, str] = field(default_factory=dict)
    used: Mapping[str, AbstractSet[Thing]] = field(default_factory=dict)
    kept: Mapping[str, AbstractSet[Thing]] = field(default_factory=dict)
    told: Mapping[str, AbstractSet[Thing]] = field(default_factory=dict)

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
    things = {(class_, oid): name for class_, oid, name, _ in listed}
    bodies = {(class_, oid): body for class_, oid, _, body in listed if body}
    rows: dict[str, list[Any]] = {
        table: connection.execute(_HELD, [schema, table]).fetchall() for table, schema in tables.items()
    }
    return Moment(
        things,
        bodies,
        {table: {(row[0], row[1]) for row in found} for table, found in rows.items()},
        {table: {(row[0], row[1]) for row in found if row[2]} for table, found in rows.items()},
        {table: {(row[0], row[1]) for row in found if row[3]} for table, found in rows.items()},
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


def redefined(
    files: Iterable[MigrationFile], moments: Mapping[int, Moment], rebuilt: AbstractSet[str]
) -> Iterator[Held]:
    """Functions that a table's checks, indexes or columns call and that a file makes others of, while its rows stay.

    The server looks at no row again; ``rebuilt`` names the tables whose rows are all made anew afterwards.
    """
    for file in files:
        before, after = moments[file.number], moments[file.number + 1]
        for table, things in sorted(before.told.items()):
            for thing in sorted(things) if table not in rebuilt else ():
                body = after.bodies.get(thing)
                if body is not None and body != before.bodies.get(thing):
                    yield Held(file, table, before.things[thing], is_retired=False)
