"""The statements of a swap: new tables in the place of the live ones, with all that hangs on them.

Several tables move in one transaction: first all of them, then each view is bound once, then what hangs on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Identifier, Literal

from position_ledger.migration.attached import Attached
from position_ledger.migration.catalogue import Catalogue, Constraint, Grant
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation
from position_ledger.projection.given_by_hand import by_hand

Statement = SQL | sql.Composed

TRIGGERS_OF = "SELECT t.tgname::text FROM pg_trigger AS t WHERE t.tgrelid = %s::regclass"
ENABLED = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


@dataclass(frozen=True, slots=True)
class Move:
    """What takes whose place in one table.

    ``live`` is None for a table that is filled for the first time, ``new`` for one that goes away. ``projection`` folds
    the tail; None if this code may not (the fingerprint of ``new`` is not ours): then ``new`` must be kept current by
    workers with its code.
    """

    table: str
    live: Generation | None
    new: Generation | None
    projection: Projection[Any] | None

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Those that there are."""
        return tuple(one for one in (self.live, self.new) if one is not None)


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """What one swap does, and what its transaction has to bring about besides.

    ``before`` is what the migrations have made of the live tables (the rest was attached by hand and goes along),
    ``after`` has the views as they are to be. ``record`` runs before anything is locked, ``verify`` last, when everything is in
    its place.
    """

    moves: tuple[Move, ...]
    before: Catalogue
    after: Catalogue
    record: Callable[[psycopg.Cursor[Any]], None]
    verify: Callable[[psycopg.Cursor[Any]], None] = lambda _cursor: None
    is_undo: bool = False
    retired_kept_hours: float = 72.0

    def undone_constraints(self, table: str) -> list[str]:
        """Foreign keys and checks that go with the table put aside, where the new one does not have them.

        Kept there, they would hold what a later migration may drop: a parent, a function.
        """
        return [one.name for one in self._differing(self.before, self.after, table)]

    def regained_constraints(self, table: str) -> list[Constraint]:
        """Those that a rollback gives back to the retired table, which lost them when it retired."""
        return self._differing(self.after, self.before, table) if self.is_undo else []

    def _differing(self, has: Catalogue, lacks: Catalogue, table: str) -> list[Constraint]:
        found, other = self._constraints(has, table), self._constraints(lacks, table)
        ours = [one for one in found.values() if one.kind in {"c", "f"}]
        return [one for one in ours if one.definition != _definition(other.get(one.name))]

    @staticmethod
    def _constraints(catalogue: Catalogue, table: str) -> Mapping[str, Constraint]:
        return catalogue.tables[table].constraints if table in catalogue.tables else {}

    @property
    def tables(self) -> list[str]:
        """The tables that move, in the order in which they are locked."""
        return sorted(move.table for move in self.moves)


def _definition(constraint: Constraint | None) -> str | None:
    return None if constraint is None else constraint.definition


def retired_schema(schema: str, generation: Generation) -> str:
    """Where the table of a generation is while it is not the live one."""
    return f"{schema}_g{generation.generation_id}"


def aside(schema: str, move: Move) -> str:
    """Where the table that was live goes: an empty one that no generation ever had stays there only for the swap."""
    if move.live is not None:
        return retired_schema(schema, move.live)
    return f"{move.new.schema}_before" if move.new is not None else schema


def take_away(plan: SwapPlan, attached: Mapping[str, Attached], schema: str) -> list[Statement]:
    """Let go of what hangs on the live tables, and put them aside."""
    statements: list[Statement] = [SQL("SET LOCAL search_path = {}, pg_catalog").format(Identifier(schema))]
    for move in plan.moves:
        hanging = attached.get(move.table)
        if hanging is None:
            continue
        live_name = Identifier(schema, move.table)
        statements += [
            SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(Identifier(fk.schema, fk.table), Identifier(fk.name))
            for fk in hanging.foreign_keys
        ]
        statements += [
            SQL("ALTER PUBLICATION {} DROP TABLE {}").format(Identifier(publication.name), live_name)
            for publication in hanging.publications
            if publication.scope == "table"
        ]
        statements += [
            SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(live_name, Identifier(name))
            for name in plan.undone_constraints(move.table)
        ]
        if move.new is not None:  # or workers that keep the table aside current would set them off once more
            statements += [
                SQL("DROP TRIGGER {} ON {}").format(Identifier(name), live_name) for name in hanging.extra_triggers
            ]
        statements.append(SQL("ALTER TABLE {} SET SCHEMA {}").format(live_name, Identifier(aside(schema, move))))
    return statements


def prepare(plan: SwapPlan, attached: Mapping[str, Attached]) -> list[Statement]:
    """What the new tables are given while they are not in their places: owner, options, comments, rights.

    Nobody waits for that: the live tables are not locked yet.
    """
    statements: list[Statement] = []
    for move in plan.moves:
        if move.new is None:
            continue
        name, hanging = Identifier(move.new.schema, move.table), attached.get(move.table)
        statements.append(SQL("SET LOCAL search_path = {}, pg_catalog").format(Identifier(move.new.schema)))
        statements.append(SQL("ALTER TABLE {} RESET (autovacuum_enabled)").format(name))
        if hanging is not None:
            statements.append(SQL("ALTER TABLE {} OWNER TO {}").format(name, Identifier(hanging.live.owner)))
            statements += by_hand(plan.before, plan.after, hanging, name)
            statements += _extra_grants(hanging, move.new.columns, name)
    return statements


def put_in_place(plan: SwapPlan, schema: str) -> list[Statement]:
    """The new tables under the names of the live ones; views are bound after this."""
    return [
        SQL("ALTER TABLE {} SET SCHEMA {}").format(Identifier(move.new.schema, move.table), Identifier(schema))
        for move in plan.moves
        if move.new is not None
    ]


def give_back(constraints: Mapping[str, Sequence[Constraint]], schema: str) -> list[Statement]:
    """Constraints that hold for new rows from now on, by table."""
    return [
        SQL("ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID").format(
            Identifier(schema, table), Identifier(one.name), SQL(one.definition.removesuffix(" NOT VALID"))
        )
        for table, lost in constraints.items()
        for one in lost
    ]


def hang_on(
    plan: SwapPlan, attached: Mapping[str, Attached], schema: str, triggers: Mapping[str, Sequence[Statement]]
) -> list[Statement]:
    """Foreign keys, publications and triggers that somebody gave the live tables, now for the new ones."""
    statements: list[Statement] = []
    for move in plan.moves:
        hanging = attached.get(move.table)
        if move.new is None or hanging is None:
            continue
        live_name = Identifier(schema, move.table)
        statements += _foreign_keys(hanging)
        statements += [_publish(one, live_name) for one in hanging.publications if one.scope == "table"]
        statements += triggers.get(move.table, ())
    return statements


def _foreign_keys(hanging: Attached) -> list[Statement]:
    made: list[Statement] = [
        SQL("ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID").format(
            Identifier(fk.schema, fk.table),
            Identifier(fk.name),
            SQL(fk.definition.removesuffix(" NOT VALID")),
        )
        for fk in hanging.foreign_keys
    ]
    return made + [
        SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
            Identifier(fk.name), Identifier(fk.schema, fk.table), Literal(fk.comment)
        )
        for fk in hanging.foreign_keys
        if fk.comment is not None
    ]


def _extra_grants(hanging: Attached, columns: Iterable[str], name: Identifier) -> list[Statement]:
    whole = [_grant(grant, SQL(grant.privilege), name) for grant in hanging.extra_grants]
    return whole + [
        _grant(grant, SQL("{} ({})").format(SQL(grant.privilege), Identifier(column)), name)
        for column, grant in hanging.extra_column_grants
        if column in columns
    ]


def _grant(grant: Grant, what: Statement, name: Identifier) -> Statement:
    option = SQL(" WITH GRANT OPTION" if grant.grantable else "")
    return SQL("GRANT {} ON {} TO {}{}").format(what, name, grantee(grant.grantee), option)


def clear_away(plan: SwapPlan, attached: Mapping[str, Attached], schema: str) -> list[Statement]:
    """Drop what nobody can come back to: a table that goes away, and an empty one that never was projected."""
    statements: list[Statement] = []
    for move in plan.moves:
        if move.table not in attached:
            continue
        if move.new is None:
            statements.append(SQL("DROP TABLE {}").format(Identifier(aside(schema, move), move.table)))
        if move.new is None or move.live is None:
            statements.append(SQL("DROP SCHEMA {} CASCADE").format(Identifier(aside(schema, move))))
    return statements


def own_triggers(cursor: psycopg.Cursor[Any], move: Move, attached: Attached) -> list[Statement]:
    """The triggers that somebody gave the live table; a retired table may have them from before."""
    if move.new is None:
        return []
    name = Identifier(move.new.schema, move.table).as_string(cursor)
    there = {row[0] for row in cursor.execute(TRIGGERS_OF, (name,))}
    wanted = [attached.live.triggers[one] for one in attached.extra_triggers if one not in there]
    live = Identifier(attached.live.name)
    made: list[Statement] = [SQL(one.definition) for one in wanted]
    switched = [
        SQL("ALTER TABLE {} {} TRIGGER {}").format(live, SQL(ENABLED[one.enabled]), Identifier(one.name))
        for one in wanted
        if one.enabled in ENABLED
    ]
    said: list[Statement] = [
        SQL("COMMENT ON TRIGGER {} ON {} IS {}").format(Identifier(one.name), live, Literal(one.comment))
        for one in wanted
        if one.comment is not None
    ]
    return [*made, *switched, *said]


def _publish(publication: Any, name: Identifier) -> Statement:
    columns = (
        SQL(" ({})").format(sql.SQL(", ").join(map(Identifier, publication.columns)))
        if publication.columns
        else SQL("")
    )
    where = SQL(" WHERE ({})").format(SQL(publication.row_filter)) if publication.row_filter else SQL("")
    return SQL("ALTER PUBLICATION {} ADD TABLE {}{}{}").format(Identifier(publication.name), name, columns, where)


def grantee(name: str) -> SQL:
    """A role as the catalogue writes it, quoted where needed."""
    return SQL({"<owner>": "CURRENT_USER", "<public>": "PUBLIC"}.get(name, name))
