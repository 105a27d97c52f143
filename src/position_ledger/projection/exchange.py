"""The statements of a swap: the new table in the place of the live one, with all that hangs on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Identifier, Literal

from position_ledger.migration.attached import Attached
from position_ledger.migration.catalogue import Catalogue, View
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation

Statement = SQL | sql.Composed

TRIGGERS_OF = "SELECT t.tgname::text FROM pg_trigger AS t WHERE t.tgrelid = %s::regclass"
ENABLED = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """What takes whose place, and what the same transaction has to bring about besides.

    ``projection`` folds the tail; None if this code may not (the fingerprint of ``new`` is not ours): then ``new`` must
    be kept current by workers with its code. ``before`` is what the migrations have made of the live table (the rest was
    attached by hand and goes along), ``after`` has the views as they are to be; ``record`` runs last.
    """

    live: Generation
    new: Generation
    projection: Projection[Any] | None
    before: Catalogue
    after: Catalogue
    record: Callable[[psycopg.Cursor[Any]], None]


def retired_schema(schema: str, generation: Generation) -> str:
    """Where the table of a generation is while it is not the live one."""
    return f"{schema}_g{generation.generation_id}"


def exchange(plan: SwapPlan, attached: Attached, schema: str, triggers: Sequence[Statement]) -> list[Statement]:
    """The statements that put the new table in place of the live one, with all that hangs on it."""
    table, live_name = plan.live.projection, Identifier(schema, plan.live.projection)
    aside = retired_schema(schema, plan.live)
    # Definitions of views are unqualified: they bind to the live schema.
    statements: list[Statement] = [SQL("SET LOCAL search_path = {}, pg_catalog").format(Identifier(schema))]
    statements += [
        SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(Identifier(fk.schema, fk.table), Identifier(fk.name))
        for fk in attached.foreign_keys
    ]
    statements += [
        SQL("ALTER PUBLICATION {} DROP TABLE {}").format(Identifier(publication.name), live_name)
        for publication in attached.publications
        if publication.scope == "table"
    ]
    statements += [
        SQL("ALTER TABLE {} SET SCHEMA {}").format(live_name, Identifier(aside)),
        SQL("ALTER TABLE {} SET SCHEMA {}").format(Identifier(plan.new.schema, table), Identifier(schema)),
        SQL("ALTER TABLE {} RESET (autovacuum_enabled)").format(live_name),
        SQL("ALTER TABLE {} OWNER TO {}").format(live_name, Identifier(attached.live.owner)),
    ]
    statements += _by_hand(plan, attached, live_name)
    statements += _bind_views(plan, attached, schema)
    statements += [
        SQL("ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID").format(
            Identifier(fk.schema, fk.table),
            Identifier(fk.name),
            SQL(_valid(fk.definition)),
        )
        for fk in attached.foreign_keys
    ]
    for publication in attached.publications:
        if publication.scope == "table":
            statements.append(_publish(publication, live_name))
    statements += triggers
    statements += [
        SQL("GRANT {} ON {} TO {}").format(SQL(grant.privilege), live_name, _grantee(grant.grantee))
        for grant in attached.extra_grants
    ]
    statements += [
        SQL("GRANT {} ({}) ON {} TO {}").format(
            SQL(grant.privilege),
            Identifier(column),
            live_name,
            _grantee(grant.grantee),
        )
        for column, grant in attached.extra_column_grants
        if column in plan.new.columns
    ]
    return statements


def own_triggers(cursor: psycopg.Cursor[Any], plan: SwapPlan, attached: Attached) -> list[Statement]:
    """The triggers that somebody gave the live table; a retired table may have them from before."""
    name = Identifier(plan.new.schema, plan.new.projection).as_string(cursor)
    there = {row[0] for row in cursor.execute(TRIGGERS_OF, (name,))}
    wanted = [attached.live.triggers[one] for one in attached.extra_triggers if one not in there]
    live = Identifier(attached.live.name)
    made: list[Statement] = [SQL(one.definition) for one in wanted]
    switched = [
        SQL("ALTER TABLE {} {} TRIGGER {}").format(live, SQL(ENABLED[one.enabled]), Identifier(one.name))
        for one in wanted
        if one.enabled in ENABLED
    ]
    return [*made, *switched]


def _by_hand(plan: SwapPlan, attached: Attached, name: Identifier) -> list[Statement]:
    """Comments and options that somebody gave the live table beside what the migrations say."""
    made, live = plan.before.tables.get(plan.live.projection), attached.live
    if made is None:
        return []
    statements: list[Statement] = []
    if live.comment != made.comment:
        statements.append(SQL("COMMENT ON TABLE {} IS {}").format(name, Literal(live.comment)))
    for column in live.columns.values():
        known = made.columns.get(column.name)
        if known is not None and column.comment != known.comment and column.name in plan.new.columns:
            on = SQL("{}.{}").format(name, Identifier(column.name))
            statements.append(SQL("COMMENT ON COLUMN {} IS {}").format(on, Literal(column.comment)))
    own = [option for option in live.options if option not in made.options]
    if own:
        statements.append(SQL("ALTER TABLE {} SET ({})").format(name, SQL(", ".join(own))))
    return statements


def _bind_views(plan: SwapPlan, attached: Attached, schema: str) -> list[Statement]:
    """Every view that reads the table itself, bound to the new one; those of the migrations as the target has them."""
    statements = [
        _replace_view(Identifier(view.schema, view.name), view.definition, view.options)
        for view in attached.views
        if view.depth == 1 and not (view.schema == schema and view.name in plan.before.views)
    ]
    for name, target in _by_dependence(plan.after.views):
        before = plan.before.views.get(name)
        if plan.live.projection not in target.reads and before == target:
            continue
        if before is not None and not _extends(before, target):
            statements.append(SQL("DROP VIEW {}").format(Identifier(schema, name)))
            before = None
        statements.append(_replace_view(Identifier(schema, name), target.definition, target.options))
        if before is None:
            statements += _describe_view(target, schema)
    gone = [name for name in plan.before.views if name not in plan.after.views]
    return [SQL("DROP VIEW {}").format(Identifier(schema, name)) for name in gone] + statements


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
    old, new = ([(c.name, c.type) for c in view.columns.values()] for view in (before, after))
    return new[: len(old)] == old


def _replace_view(name: Identifier, definition: str, options: Sequence[str]) -> Statement:
    # Replacing a view gives it the options of the statement, so they are said again.
    given = SQL(" WITH ({})").format(SQL(", ".join(options))) if options else SQL("")
    return SQL("CREATE OR REPLACE VIEW {}{} AS {}").format(name, given, SQL(definition.rstrip().rstrip(";")))


def _describe_view(view: View, schema: str) -> list[Statement]:
    name = Identifier(schema, view.name)
    statements: list[Statement] = [
        SQL("GRANT {} ON {} TO {}").format(SQL(grant.privilege), name, _grantee(grant.grantee)) for grant in view.grants
    ]
    if view.comment is not None:
        statements.append(SQL("COMMENT ON VIEW {} IS {}").format(name, Literal(view.comment)))
    return statements


def _publish(publication: Any, name: Identifier) -> Statement:
    columns = (
        SQL(" ({})").format(sql.SQL(", ").join(map(Identifier, publication.columns)))
        if publication.columns
        else SQL("")
    )
    where = SQL(" WHERE ({})").format(SQL(publication.row_filter)) if publication.row_filter else SQL("")
    return SQL("ALTER PUBLICATION {} ADD TABLE {}{}{}").format(Identifier(publication.name), name, columns, where)


def _grantee(grantee: str) -> SQL:
    """A role as the catalogue writes it, quoted where needed."""
    return SQL({"<owner>": "CURRENT_USER", "<public>": "PUBLIC"}.get(grantee, grantee))


def _valid(definition: str) -> str:
    return definition.removesuffix(" NOT VALID")
