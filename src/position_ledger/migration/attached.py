"""What else hangs on a live table, so that a swap moves it, binds it again or names it as a blocker.

Definitions are read with nothing but pg_catalog on the search path: every name in them is qualified, so they can be run
again, from any session, once a new table has taken the place and the name of the old one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from position_ledger.errors import MigrationError
from position_ledger.migration.introspect import read_table

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

    from position_ledger.migration.catalogue import Grant, Table

__all__ = [
    "Attached",
    "DependentFunction",
    "DependentRule",
    "DependentView",
    "IncomingForeignKey",
    "PublicationMember",
    "RowTypeColumn",
    "Settled",
    "attached_to",
]


@dataclass(frozen=True, slots=True)
class IncomingForeignKey:
    """A foreign key of another table that references this one; ``definition`` as in ALTER TABLE … ADD CONSTRAINT.

    ``is_fixed``: its table is partitioned, and this server cannot add such a key without looking at every row.
    """

    schema: str
    table: str
    name: str
    definition: str
    validated: bool
    comment: str | None = None
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class DependentView:
    """A view or materialized view that reads the table, through ``depth`` others at most (1 reads it itself)."""

    schema: str
    name: str
    materialized: bool
    definition: str
    depth: int
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DependentFunction:
    """A function bound to the table or its row type: a BEGIN ATOMIC body, an argument or a result."""

    schema: str
    signature: str
    reason: str


@dataclass(frozen=True, slots=True)
class DependentRule:
    """A rewrite rule on the table, or on another relation with an action that uses it."""

    schema: str
    relation: str
    name: str
    definition: str


@dataclass(frozen=True, slots=True)
class PublicationMember:
    """A publication that has the table: ``scope`` is table (must be altered at a swap), schema or all."""

    name: str
    scope: str
    columns: tuple[str, ...]
    row_filter: str | None


@dataclass(frozen=True, slots=True)
class RowTypeColumn:
    """A column elsewhere whose type is this table's row type, so that the table cannot be replaced."""

    schema: str
    relation: str
    column: str


@dataclass(frozen=True, slots=True)
class Settled:
    """How the table is set, beside what a catalogue value has: the replica identity with its index, and the cluster index.

    ``replica_identity`` as in pg_class: d(efault), f(ull), n(othing), i(ndex).
    """

    replica_identity: str
    identity_index: str | None
    cluster_index: str | None


@dataclass(frozen=True, slots=True)
class Attached:
    """Everything that hangs on a live table; the ``extra_`` parts are what the target table does not have.

    ``others`` describes, as the server does, what else depends on the table or was said of it and cannot be moved.
    """

    live: Table
    foreign_keys: tuple[IncomingForeignKey, ...]
    views: tuple[DependentView, ...]
    functions: tuple[DependentFunction, ...]
    rules: tuple[DependentRule, ...]
    publications: tuple[PublicationMember, ...]
    row_type_columns: tuple[RowTypeColumn, ...]
    owned_sequences: tuple[str, ...]
    extra_triggers: tuple[str, ...]
    extra_indexes: tuple[str, ...]
    extra_constraints: tuple[str, ...]
    extra_grants: tuple[Grant, ...]
    extra_column_grants: tuple[tuple[str, Grant], ...]
    settled: Settled = Settled("d", None, None)
    others: tuple[str, ...] = ()


_FOREIGN_KEYS: Final = """
    SELECT n.nspname::text AS schema, c.relname::text AS table, k.conname::text AS name,
           pg_get_constraintdef(k.oid) AS definition, k.convalidated AS validated,
           obj_description(k.oid, 'pg_constraint') AS comment,
           c.relkind = 'p' AND current_setting('server_version_num')::int < 180000 AS is_fixed
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype = 'f' AND k.confrelid = %(table)s AND k.conrelid <> %(table)s AND k.conparentid = 0
     ORDER BY 1, 2, 3
"""
_VIEWS: Final = """
    WITH RECURSIVE below(relation, depth) AS (
        SELECT %(table)s::oid, 0
        UNION
        SELECT r.ev_class, b.depth + 1
          FROM below b JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = b.relation
                                       AND d.classid = 'pg_rewrite'::regclass
          JOIN pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN' AND r.ev_class <> b.relation
    )
    SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind = 'm' AS materialized,
           pg_get_viewdef(c.oid) AS definition, max(b.depth) AS depth, coalesce(c.reloptions, '{}') AS options
      FROM below b JOIN pg_class c ON c.oid = b.relation JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE b.depth > 0
     GROUP BY n.nspname, c.relname, c.relkind, c.oid, c.reloptions
     ORDER BY max(b.depth), 1, 2
"""
_ROW_TYPES: Final = """
    SELECT t.oid FROM pg_type t JOIN pg_class c ON t.oid = c.reltype WHERE c.oid = %(table)s
    UNION ALL
    SELECT t.typarray FROM pg_type t JOIN pg_class c ON t.oid = c.reltype WHERE c.oid = %(table)s
"""
_FUNCTIONS: Final = f"""
    SELECT DISTINCT n.nspname::text AS schema,
           format('%%I(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)) AS signature,
           CASE WHEN d.refclassid = 'pg_class'::regclass THEN 'body' ELSE 'row type' END AS reason
      FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
      JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s
        OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN ({_ROW_TYPES})
     ORDER BY 1, 2, 3
"""
_RULES: Final = """
    SELECT n.nspname::text AS schema, c.relname::text AS relation, r.rulename::text AS name,
           pg_get_ruledef(r.oid) AS definition
      FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE r.rulename <> '_RETURN' AND (r.ev_class = %(table)s OR EXISTS (
         SELECT FROM pg_depend d WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
            AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s))
     ORDER BY 1, 2, 3
"""
_PUBLICATIONS: Final = """
    SELECT p.pubname::text AS name, 'table' AS scope,
           (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
             WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)) AS columns,
           pg_get_expr(r.prqual, r.prrelid) AS row_filter
      FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = %(table)s
    UNION ALL
    SELECT p.pubname::text, 'schema', NULL, NULL
      FROM pg_publication_namespace s JOIN pg_publication p ON p.oid = s.pnpubid
      JOIN pg_class c ON c.relnamespace = s.pnnspid WHERE c.oid = %(table)s
    UNION ALL
    SELECT p.pubname::text, 'all', NULL, NULL FROM pg_publication p WHERE p.puballtables
    ORDER BY 1, 2
"""
_ROW_TYPE_COLUMNS: Final = f"""
    SELECT n.nspname::text AS schema, c.relname::text AS relation, a.attname::text AS column
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE a.atttypid IN ({_ROW_TYPES}) AND NOT a.attisdropped
     ORDER BY 1, 2, 3
"""
_OWNED_SEQUENCES: Final = """
    SELECT d.objid::regclass::text AS name
      FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s
       AND d.deptype IN ('a', 'i')
     ORDER BY 1
"""
_SETTLED: Final = """
    SELECT c.relreplident::text AS replica_identity,
           (SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
             WHERE x.indrelid = c.oid AND x.indisreplident) AS identity_index,
           (SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
             WHERE x.indrelid = c.oid AND x.indisclustered) AS cluster_index
      FROM pg_class c WHERE c.oid = %(table)s
"""
# Whatever depends on the table and is of none of the kinds that are looked at elsewhere: better named than lost.
_OTHERS: Final = f"""
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid) || ' depends on it (drop it for the swap)' AS name
      FROM pg_depend d
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s AND d.deptype IN ('n', 'a')
       AND CASE d.classid
           WHEN 'pg_policy'::regclass THEN (SELECT p.polrelid <> d.refobjid FROM pg_policy p WHERE p.oid = d.objid)
           WHEN 'pg_statistic_ext'::regclass THEN (
               SELECT s.stxnamespace <> c.relnamespace FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid
                WHERE s.oid = d.objid)
           ELSE d.classid NOT IN ('pg_rewrite'::regclass, 'pg_constraint'::regclass, 'pg_proc'::regclass,
                   'pg_trigger'::regclass, 'pg_attrdef'::regclass, 'pg_publication_rel'::regclass, 'pg_class'::regclass,
                   'pg_type'::regclass)
           END
    UNION
    SELECT pg_describe_object('pg_trigger'::regclass, t.oid, 0) || ' refers to it (drop it for the swap)'
      FROM pg_trigger t WHERE t.tgconstrrelid = %(table)s AND NOT t.tgisinternal
    UNION
    SELECT 'domain ' || t.oid::regtype || ' is made of its row type (drop it for the swap)'
      FROM pg_type t WHERE t.typtype = 'd' AND t.typbasetype IN ({_ROW_TYPES})
    UNION
    SELECT 'index ' || x.indexrelid::regclass || ' is in the tablespace ' || s.spcname
           || ' (ALTER INDEX … SET TABLESPACE pg_default for the swap, and back after it)'
      FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_tablespace s ON s.oid = i.reltablespace
     WHERE x.indrelid = %(table)s
    UNION
    SELECT 'it has a security label of ' || l.provider || ' (SECURITY LABEL … IS NULL for the swap, and again after it)'
      FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = %(table)s
    ORDER BY 1
"""


def attached_to(connection: Connection[Any], schema: str, table: str, target: Table | None = None) -> Attached:
    """Read what hangs on the live table; MigrationError when there is no such table.

    ``target`` is the table as the migrations make it: what the live one has beyond it was added by hand. Without a
    target nothing counts as extra. Publication membership by schema or for all tables needs no action at a swap.
    """
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_FIND, [schema, table]).fetchone()
        if found is None:
            raise MigrationError(f"there is no table {schema}.{table}; apply the migrations first")
        cursor.execute("SELECT set_config('search_path', 'pg_catalog', true)")
        hanging = _hanging(cursor, found["oid"])
        cursor.execute("SELECT set_config('search_path', %s, true)", [found["path"]])
        live = read_table(connection, schema, table)
    return Attached(live=live, **hanging, **_extras(live, target or live))


_FIND: Final = """
    SELECT c.oid, current_setting('search_path') AS path
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""


def _hanging(cursor: Cursor[dict[str, Any]], oid: int) -> dict[str, Any]:
    def rows(query: str) -> list[dict[str, Any]]:
        return cursor.execute(query.encode(), {"table": oid}).fetchall()

    return {
        "foreign_keys": tuple(IncomingForeignKey(**row) for row in rows(_FOREIGN_KEYS)),
        "views": tuple(DependentView(**{**row, "options": tuple(row["options"])}) for row in rows(_VIEWS)),
        "functions": tuple(DependentFunction(**row) for row in rows(_FUNCTIONS)),
        "rules": tuple(DependentRule(**row) for row in rows(_RULES)),
        "publications": tuple(
            PublicationMember(**{**row, "columns": tuple(row["columns"] or ())}) for row in rows(_PUBLICATIONS)
        ),
        "row_type_columns": tuple(RowTypeColumn(**row) for row in rows(_ROW_TYPE_COLUMNS)),
        "owned_sequences": tuple(row["name"] for row in rows(_OWNED_SEQUENCES)),
        "settled": Settled(**rows(_SETTLED)[0]),
        "others": tuple(row["name"] for row in rows(_OTHERS)),
    }


def _extras(live: Table, target: Table) -> dict[str, Any]:
    return {
        "extra_triggers": tuple(name for name in live.triggers if name not in target.triggers),
        "extra_indexes": tuple(name for name in live.indexes if name not in target.indexes),
        "extra_constraints": tuple(name for name in live.constraints if name not in target.constraints),
        "extra_grants": tuple(grant for grant in live.grants if grant not in target.grants),
        "extra_column_grants": tuple(
            (name, grant)
            for name, column in live.columns.items()
            if name in target.columns
            for grant in column.grants
            if grant not in target.columns[name].grants
        ),
    }
