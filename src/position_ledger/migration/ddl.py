"""SQL that makes a table again from its catalogue values: bare for a bulk load, then finished.

Definitions come from the server unqualified, so both parts are run after ``shadow_path``: the shadow's schema first,
then the live one, where the plain tables, types and functions are that the table refers to.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from psycopg import sql

from position_ledger.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from psycopg.sql import Composable, Composed

    from position_ledger.migration.catalogue import Column, Constraint, Grant, Table

__all__ = [
    "create_table",
    "finish_table",
    "grant_statements",
    "index_statements",
    "shadow_path",
    "unfit_for_projection",
]

_STORAGE: Final = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
_COMPRESSION: Final = {"p": "pglz", "l": "lz4"}
_ENABLED: Final = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
_CONSTRAINT_ORDER: Final = "puxcnf"


def unfit_for_projection(table: Table) -> list[str]:
    """Why replaying the log could not give this table the same rows; empty when it can.

    A projected row is what its events say: a default that reads a clock, a sequence or chance, or an identity column,
    would give another value at every rebuild.
    """
    return [
        *(f"column {column.name} is an identity column" for column in table.columns.values() if column.identity),
        *(
            f"column {column.name} has the changing default {column.default}"
            for column in table.columns.values()
            if column.default_volatility in {"s", "v"} and not column.generated
        ),
        *(f"it has {feature}" for feature in table.unsupported),
    ]


def shadow_path(schema: str, live: str) -> Composed:
    """The SET LOCAL search_path under which the statements of this module mean what they say."""
    return sql.SQL("SET LOCAL search_path = {}, {}").format(sql.Identifier(schema), sql.Identifier(live))


def create_table(table: Table, schema: str) -> Composed:
    """The bare table in schema: columns with NOT NULL and defaults, checks, storage and options; no index.

    NOT NULL and checks belong here: a load knows the values, and says at once which row does not fit. Added later, each of
    them reads the whole table, one after the other.
    Raises MigrationError for a table with a feature that cannot be generated.
    """
    _refuse_unsupported(table)
    name = sql.Identifier(schema, table.name)
    columns = sql.SQL(", ").join(_column(column) for column in table.columns.values())
    parts = [sql.SQL("CREATE TABLE {} ({})").format(name, columns)]
    if table.options:
        parts.append(sql.SQL(" WITH ({})").format(_options(table.options)))
    parts.extend(
        sql.SQL("; ALTER TABLE {} ALTER COLUMN {} SET STORAGE {}").format(
            name, sql.Identifier(column.name), _raw(_STORAGE[column.storage])
        )
        for column in table.columns.values()
        if column.storage is not None
    )
    made = (constraint for constraint in table.constraints.values() if _is_made_with_table(constraint))
    parts.extend(sql.SQL("; {}").format(_constraint(table, name, constraint)) for constraint in made)
    return sql.Composed(parts)


def _is_made_with_table(constraint: Constraint) -> bool:
    """A check that every row keeps; rows that are there may break one that is NOT VALID."""
    return constraint.kind == "c" and not constraint.definition.endswith(" NOT VALID")


def finish_table(
    table: Table, schema: str, *, with_indexes: bool = True, checks: Container[str] | None = None
) -> list[Composed]:
    """What the loaded table still lacks, in order; afterwards its catalogue equals the one it was made from.

    Without ``with_indexes`` those of `index_statements` are there already. ``checks`` are those that the table has, by
    name; None: those of `create_table`.
    """
    _refuse_unsupported(table)
    name = sql.Identifier(schema, table.name)
    return [
        *(index_statements(table).values() if with_indexes else ()),
        *_constraints(table, name, checks),
        *_options_of_own_indexes(table, schema),
        *_statistics(table, name, schema),
        *_triggers(table, name),
        *_options_again(table, name),
        *grant_statements(table, schema),
        *_comments(table, name, schema),
    ]


def grant_statements(table: Table, schema: str) -> Iterator[Composed]:
    """Exactly the table's privileges: what the owner and PUBLIC got by default is taken back first."""
    name = sql.Identifier(schema, table.name)
    yield sql.SQL("REVOKE ALL ON TABLE {} FROM PUBLIC, CURRENT_USER").format(name)
    yield from _grants(table.grants, name, None)
    for column in table.columns.values():
        yield from _grants(column.grants, name, column.name)


def _refuse_unsupported(table: Table) -> None:
    invalid = [f"the invalid index {index.name}" for index in table.indexes.values() if not index.valid]
    identity = [f"the identity column {column.name}" for column in table.columns.values() if column.identity]
    for feature in (*table.unsupported, *identity, *invalid):
        raise MigrationError(
            f"table {table.name} cannot be made again beside itself: it has {feature}; take that away first"
        )


def _raw(text: str) -> sql.SQL:
    """Text that the server itself wrote as SQL."""
    return sql.SQL(text)


def _column(column: Column) -> Composed:
    parts: list[Composable] = [sql.Identifier(column.name), _raw(column.type)]
    if column.compression:
        parts.append(_raw(f"COMPRESSION {_COMPRESSION[column.compression]}"))
    if column.collation is not None:
        parts.append(_raw(f"COLLATE {column.collation}"))
    if column.generated:
        kind = {"s": "STORED", "v": "VIRTUAL"}[column.generated]
        parts.append(_raw(f"GENERATED ALWAYS AS ({column.default}) {kind}"))
    elif column.default is not None:
        parts.append(_raw(f"DEFAULT {column.default}"))
    if column.not_null:
        parts.append(sql.SQL("NOT NULL"))
    return sql.SQL(" ").join(parts)


def _options(options: Iterable[str]) -> Composed:
    pairs = (option.partition("=") for option in options)
    return sql.SQL(", ").join(_raw(f"{key} = ") + sql.Literal(value) for key, _, value in pairs)


def _options_again(table: Table, name: sql.Identifier) -> Iterator[Composed]:
    """Once more after the load, for which some of them may have been set otherwise."""
    if table.options:
        yield sql.SQL("ALTER TABLE {} SET ({})").format(name, _options(table.options))


def index_statements(table: Table) -> dict[str, Composed]:
    """The indexes by name, also those that a constraint takes over, each with the statement that builds it.

    Each takes only a SHARE lock, so several sessions may build them side by side.
    """
    return {
        index.name: _raw(index.definition) + sql.SQL("")
        for index in table.indexes.values()
        if not index.constraint or _is_attachable(table, index.name)
    }


def _is_attachable(table: Table, name: str) -> bool:
    """Whether the constraint can take a finished index over: its own definition would lose the index's options."""
    constraint, index = table.constraints[name], table.indexes[name]
    return constraint.kind in {"p", "u"} and " USING btree " in index.definition


def _constraints(table: Table, name: sql.Identifier, checks: Container[str] | None) -> Iterator[Composed]:
    for constraint in sorted(
        table.constraints.values(), key=lambda each: (_CONSTRAINT_ORDER.index(each.kind), each.name)
    ):
        is_there = _is_made_with_table(constraint) if checks is None else constraint.name in checks
        if constraint.kind != "c" or not is_there:
            yield _constraint(table, name, constraint)


def _constraint(table: Table, name: sql.Identifier, constraint: Constraint) -> Composed:
    definition: Composable = _raw(constraint.definition)
    if constraint.kind in {"p", "u"} and _is_attachable(table, constraint.name):
        kind = "PRIMARY KEY" if constraint.kind == "p" else "UNIQUE"
        _, deferrable, rest = constraint.definition.rpartition(" DEFERRABLE")
        definition = sql.SQL("{} USING INDEX {}{}").format(
            _raw(kind), sql.Identifier(constraint.name), _raw(deferrable + rest if deferrable else "")
        )
    return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(name, sql.Identifier(constraint.name), definition)


def _options_of_own_indexes(table: Table, schema: str) -> Iterator[Composed]:
    for index in table.indexes.values():
        if index.constraint and index.options and not _is_attachable(table, index.name):
            yield sql.SQL("ALTER INDEX {} SET ({})").format(sql.Identifier(schema, index.name), _options(index.options))


def _statistics(table: Table, name: sql.Identifier, schema: str) -> Iterator[Composed]:
    for column in table.columns.values():
        alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET ").format(name, sql.Identifier(column.name))
        if column.statistics_target is not None:
            yield alter + sql.SQL("STATISTICS {}").format(sql.Literal(column.statistics_target))
        if column.options:
            yield alter + sql.SQL("({})").format(_options(column.options))
    for index in table.indexes.values():
        for number, target in index.statistics_targets:
            yield sql.SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}").format(
                sql.Identifier(schema, index.name), sql.Literal(number), sql.Literal(target)
            )
    for definition in table.statistics.values():
        yield _raw(definition) + sql.SQL("")


def _triggers(table: Table, name: sql.Identifier) -> Iterator[Composed]:
    for trigger in table.triggers.values():
        yield _raw(trigger.definition) + sql.SQL("")
        if trigger.enabled in _ENABLED:
            yield sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(
                name, _raw(_ENABLED[trigger.enabled]), sql.Identifier(trigger.name)
            )


def _grants(grants: Iterable[Grant], name: sql.Identifier, column: str | None) -> Iterator[Composed]:
    def key(grant: Grant) -> tuple[str, bool]:
        return grant.grantee, grant.grantable

    for (grantee, grantable), group in groupby(sorted(grants, key=key), key):
        of_column = sql.SQL(" ({})").format(sql.Identifier(column)) if column else sql.SQL("")
        privileges = sql.SQL(", ").join(_raw(grant.privilege) + of_column for grant in group)
        role = {"<owner>": "CURRENT_USER", "<public>": "PUBLIC"}.get(grantee, grantee)
        option = sql.SQL(" WITH GRANT OPTION" if grantable else "")
        yield sql.SQL("GRANT {} ON TABLE {} TO {}{}").format(privileges, name, _raw(role), option)


def _comments(table: Table, name: sql.Identifier, schema: str) -> Iterator[Composed]:
    for place, comment in _commented(table, name, schema):
        if comment is not None:
            yield sql.SQL("COMMENT ON {} IS {}").format(place, sql.Literal(comment))


def _commented(table: Table, name: sql.Identifier, schema: str) -> Iterator[tuple[Composed, str | None]]:
    yield sql.SQL("TABLE {}").format(name), table.comment
    for column in table.columns.values():
        yield sql.SQL("COLUMN {}").format(sql.Identifier(schema, table.name, column.name)), column.comment
    for index in table.indexes.values():
        yield sql.SQL("INDEX {}").format(sql.Identifier(schema, index.name)), index.comment
    for constraint in table.constraints.values():
        yield sql.SQL("CONSTRAINT {} ON {}").format(sql.Identifier(constraint.name), name), constraint.comment
    for trigger in table.triggers.values():
        yield sql.SQL("TRIGGER {} ON {}").format(sql.Identifier(trigger.name), name), trigger.comment
