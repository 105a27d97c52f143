"""The views of a swap: bound to the new tables in place where PostgreSQL allows it, else dropped and made again whole.

`CREATE OR REPLACE VIEW` keeps everything that hangs on a view, and can only add columns. When a column changes its type
or goes, the view and all that read it are dropped in the same transaction and come back with the owner, the grants, the
comments and the triggers that they had, whether a migration or somebody's hand had given them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from position_ledger.database import first_line
from position_ledger.errors import SwapBlocked
from position_ledger.migration.attached import Attached, DependentView
from position_ledger.migration.catalogue import Catalogue, Column, Grant, View
from position_ledger.projection.exchange import SwapPlan, grantee

Name = tuple[str, str]
"""Schema and name of a view."""

ForView = tuple[Composed, str]
"""A statement, and the view that it makes what it is to be."""

DOES_NOT_FIT = (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.errors.DependentObjectsStillExist)
"""What the server says of a statement that cannot be run as the tables are now."""

DEPENDENTS = """
WITH RECURSIVE below (relation, depth) AS (
    SELECT c.oid, 0 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN unnest(%s::text[], %s::text[]) AS u (s, v) ON (n.nspname, c.relname) = (u.s, u.v)
     UNION
    SELECT r.ev_class, b.depth + 1
      FROM below AS b JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = b.relation
                                         AND d.classid = 'pg_rewrite'::regclass
      JOIN pg_rewrite AS r ON r.oid = d.objid AND r.rulename = '_RETURN' AND r.ev_class <> b.relation
)
SELECT n.nspname::text AS schema, c.relname::text AS name, pg_get_viewdef(c.oid) AS definition,
       coalesce(c.reloptions, '{}') AS options, pg_get_userbyid(c.relowner)::text AS owner,
       obj_description(c.oid, 'pg_class') AS comment,
       ARRAY(SELECT jsonb_build_object('column', CASE WHEN a.attnum > 0 THEN a.attname END, 'privilege', x.privilege_type,
                    'grantee', CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
                    'grantable', x.is_grantable)
               FROM (SELECT 0 AS attnum, NULL AS attname, c.relacl AS acl UNION ALL
                     SELECT t.attnum, t.attname, t.attacl FROM pg_attribute AS t WHERE t.attrelid = c.oid) AS a,
                    LATERAL aclexplode(a.acl) AS x WHERE x.grantee <> c.relowner ORDER BY 1) AS grants,
       ARRAY(SELECT jsonb_build_array(a.attname, d.description) FROM pg_attribute AS a
               JOIN pg_description AS d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
              WHERE a.attrelid = c.oid AND a.attnum > 0 ORDER BY a.attnum) AS comments,
       ARRAY(SELECT jsonb_build_array(a.attname, pg_get_expr(d.adbin, d.adrelid)) FROM pg_attribute AS a
               JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE a.attrelid = c.oid
              ORDER BY a.attnum) AS defaults,
       ARRAY(SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
              ORDER BY t.tgname) AS triggers
  FROM (SELECT b.relation, max(b.depth) AS depth FROM below AS b GROUP BY b.relation) AS b
  JOIN pg_class AS c ON c.oid = b.relation JOIN pg_namespace AS n ON n.oid = c.relnamespace
 ORDER BY b.depth, 1, 2
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """All that a view has, with every name in it qualified, so that it can be made again."""

    schema: str
    name: str
    definition: str
    options: Sequence[str]
    owner: str
    comment: str | None
    grants: Sequence[dict[str, Any]]
    comments: Sequence[tuple[str, str]]
    defaults: Sequence[tuple[str, str]]
    triggers: Sequence[str]


def to_drop(plan: SwapPlan, attached: Mapping[str, Attached], schema: str) -> list[Name]:
    """The views that cannot be bound in place; those that read them are dropped with them."""
    before, after = plan.before.views, plan.after.views
    made = [
        (schema, name)
        for name, view in before.items()
        if name not in after or (not _extends(view, after[name]) and _is_bound(plan, view, after[name]))
    ]
    return made + (_users_views(plan, attached, schema) if _is_retyped(plan) else [])


def _users_views(plan: SwapPlan, attached: Mapping[str, Attached], schema: str) -> list[Name]:
    return [(view.schema, view.name) for view in by_hand(plan.before, attached, schema)]


def by_hand(before: Catalogue, attached: Mapping[str, Attached], schema: str) -> list[DependentView]:
    """The views that no migration made, each once, those that are read by others first."""
    found = {
        (view.schema, view.name): view
        for hanging in attached.values()
        for view in hanging.views
        if not (view.schema == schema and view.name in before.views)
    }
    return sorted(found.values(), key=lambda view: (depth_of(view, attached), view.schema, view.name))


def depth_of(view: DependentView, attached: Mapping[str, Attached]) -> int:
    """Through how many views it reads a table at most."""
    return max(
        one.depth
        for hanging in attached.values()
        for one in hanging.views
        if (one.schema, one.name) == (view.schema, view.name)
    )


def _is_retyped(plan: SwapPlan) -> bool:
    """Whether a column of a moving table has another type: what reads it has another one too, or may have."""
    for table in plan.tables:
        old, new = (catalogue.tables.get(table) for catalogue in (plan.before, plan.after))
        if (
            old is not None
            and new is not None
            and any(_differs(old.columns, new.columns, name) for name in old.columns)
        ):
            return True
    return False


def _differs(old: Mapping[str, Column], new: Mapping[str, Column], name: str) -> bool:
    return name in new and (old[name].type, old[name].collation) != (new[name].type, new[name].collation)


def _is_bound(plan: SwapPlan, before: View, after: View) -> bool:
    """Whether the swap has to say again what the view is."""
    return before != after or bool(set(plan.tables) & set(after.reads))


def drop(cursor: psycopg.Cursor[Any], names: Collection[Name]) -> list[Kept]:
    """Drop views and all that read them, before the tables move; answers what they were, those that are read first."""
    if not names:
        return []
    schemas, views = [schema for schema, _ in names], [view for _, view in names]
    with cursor.connection.cursor(row_factory=class_row(Kept)) as reading:
        reading.execute("SELECT set_config('search_path', 'pg_catalog', true)")
        kept = reading.execute(DEPENDENTS, (schemas, views)).fetchall()
    for view in reversed(kept):
        run(cursor, SQL("DROP VIEW {}").format(Identifier(view.schema, view.name)), f"{view.schema}.{view.name}")
    return kept


def bind(plan: SwapPlan, attached: Mapping[str, Attached], schema: str, dropped: Sequence[Kept]) -> Iterator[ForView]:
    """Every view of the migrations as the target has it, then those that somebody made, all on the new tables."""
    gone = {(view.schema, view.name): view for view in dropped}
    for name, target in _by_dependence(plan.after.views):
        before, kept = plan.before.views.get(name), gone.get((schema, name))
        place = Identifier(schema, name)
        if before is None or kept is not None:
            yield from _for(name, _made(target, place))
            if before is not None and kept is not None:
                yield from _for(name, _given_by_hand(before, target, kept))
        elif _is_bound(plan, before, target):
            yield replace_view(place, target.definition, target.options), name
            yield from _for(name, _described_anew(before, target, place))
    for view in by_hand(plan.before, attached, schema):
        if view.depth == 1 and (view.schema, view.name) not in gone:
            made = replace_view(Identifier(view.schema, view.name), view.definition, view.options)
            yield made, f"{view.schema}.{view.name}"
    for kept in dropped:
        if not (kept.schema == schema and kept.name in plan.before.views):
            yield from _for(f"{kept.schema}.{kept.name}", _again(kept))


def _for(view: str, statements: Iterable[Composed]) -> Iterator[ForView]:
    return ((statement, view) for statement in statements)


def run(cursor: psycopg.Cursor[Any], statement: SQL | Composed, view: str) -> None:
    """Run what makes a view what it is to be.

    Raises:
        SwapBlocked: the server does not do it; names the view.
    """
    try:
        cursor.execute(statement)
    except DOES_NOT_FIT as error:
        msg = (
            f"view {view} does not fit the new tables: {first_line(error)}; change or drop the view, then run the command "
            "again; the live tables are unchanged"
        )
        raise SwapBlocked(msg) from error


def _by_dependence(views: Mapping[str, View]) -> list[tuple[str, View]]:
    """The views, each after those that it reads."""
    ordered: dict[str, View] = {}

    def add(name: str) -> None:
        if name in views and name not in ordered:
            for read in views[name].reads:
                add(read)
            ordered[name] = views[name]

    for name in sorted(views):
        add(name)
    return list(ordered.items())


def _extends(before: View, after: View) -> bool:
    """Whether CREATE OR REPLACE can make the one of the other: the same columns first, then only new ones."""
    old, new = ([(c.name, c.type, c.collation) for c in view.columns.values()] for view in (before, after))
    return new[: len(old)] == old


def replace_view(name: Identifier, definition: str, options: Sequence[str]) -> Composed:
    """Make a view or bind it again; replacing it gives it the options of the statement, so they are said each time."""
    given = SQL(" WITH ({})").format(SQL(", ".join(options))) if options else SQL("")
    return SQL("CREATE OR REPLACE VIEW {}{} AS {}").format(name, given, SQL(definition.rstrip().rstrip(";")))


def _made(view: View, name: Identifier) -> Iterator[Composed]:
    yield replace_view(name, view.definition, view.options)
    yield from _all_of(view, name)


def _all_of(view: View, name: Identifier) -> Iterator[Composed]:
    """What the migrations gave a view beside its definition."""
    yield from _granted(view.grants, name)
    yield from _commented(name, view.comment, {c.name: c.comment for c in view.columns.values() if c.comment})
    for column in view.columns.values():
        yield from _granted(column.grants, name, column.name)
        if column.default is not None:
            yield _default(name, column.name, column.default)
    for trigger in view.triggers.values():
        yield SQL("{}").format(SQL(trigger.definition))
    for rule in view.rules.values():
        yield SQL("{}").format(SQL(rule))


def _described_anew(before: View, after: View, name: Identifier) -> Iterator[Composed]:
    """What the migrations say of a view that is bound in place, where they say something new."""
    yield from _granted([grant for grant in after.grants if grant not in before.grants], name)
    for grant in before.grants:
        if grant not in after.grants:
            yield SQL("REVOKE {} ON {} FROM {}").format(SQL(grant.privilege), name, grantee(grant.grantee))
    comments = {
        column.name: column.comment
        for column in after.columns.values()
        if column.comment != (before.columns[column.name].comment if column.name in before.columns else None)
    }
    for column, words in comments.items():
        yield SQL("COMMENT ON COLUMN {}.{} IS {}").format(name, Identifier(column), Literal(words))
    if after.comment != before.comment:
        yield SQL("COMMENT ON VIEW {} IS {}").format(name, Literal(after.comment))


def _given_by_hand(before: View, after: View, kept: Kept) -> Iterator[Composed]:
    """What somebody gave a view of the migrations that had to be made again."""
    name = Identifier(kept.schema, kept.name)
    made: set[tuple[str | None, str, str, bool]] = {
        (None, g.privilege, grantee(g.grantee).as_string(None), g.grantable) for g in before.grants
    }
    made |= {
        (c.name, g.privilege, grantee(g.grantee).as_string(None), g.grantable)
        for c in before.columns.values()
        for g in c.grants
    }
    own = [g for g in kept.grants if (g["column"], g["privilege"], g["grantee"], g["grantable"]) not in made]
    yield from _granted_again([g for g in own if g["column"] in (None, *after.columns)], name)
    if kept.comment != before.comment and kept.comment is not None:
        yield from _commented(name, kept.comment, {})
    known = {column.name: column.comment for column in before.columns.values()}
    words = {column: text for column, text in kept.comments if column in after.columns and known.get(column) != text}
    yield from _commented(name, None, words)
    yield SQL("ALTER VIEW {} OWNER TO {}").format(name, Identifier(kept.owner))


def _again(kept: Kept) -> Iterator[Composed]:
    """A view that somebody made, as it was."""
    name = Identifier(kept.schema, kept.name)
    yield replace_view(name, kept.definition, kept.options)
    yield SQL("ALTER VIEW {} OWNER TO {}").format(name, Identifier(kept.owner))
    yield from _granted_again(kept.grants, name)
    yield from _commented(name, kept.comment, dict(kept.comments))
    for column, default in kept.defaults:
        yield _default(name, column, default)
    for trigger in kept.triggers:
        yield SQL("{}").format(SQL(trigger))


def _default(name: Identifier, column: str, default: str) -> Composed:
    return SQL("ALTER VIEW {} ALTER COLUMN {} SET DEFAULT {}").format(name, Identifier(column), SQL(default))


def _commented(name: Identifier, whole: str | None, columns: Mapping[str, str | None]) -> Iterator[Composed]:
    if whole is not None:
        yield SQL("COMMENT ON VIEW {} IS {}").format(name, Literal(whole))
    for column, words in columns.items():
        yield SQL("COMMENT ON COLUMN {}.{} IS {}").format(name, Identifier(column), Literal(words))


def _granted(grants: Iterable[Grant], name: Identifier, column: str | None = None) -> Iterator[Composed]:
    for grant in grants:
        yield _grant(grant.privilege, column, name, grantee(grant.grantee), is_grantable=grant.grantable)


def _granted_again(grants: Iterable[dict[str, Any]], name: Identifier) -> Iterator[Composed]:
    for grant in grants:
        yield _grant(grant["privilege"], grant["column"], name, SQL(grant["grantee"]), is_grantable=grant["grantable"])


def _grant(privilege: str, column: str | None, name: Identifier, role: SQL, *, is_grantable: bool) -> Composed:
    on = SQL(" ({})").format(Identifier(column)) if column else SQL("")
    option = SQL(" WITH GRANT OPTION" if is_grantable else "")
    return SQL("GRANT {}{} ON {} TO {}{}").format(SQL(privilege), on, name, role, option)
