"""The safe form of what a plan finds unsafe, as SQL to copy: written for the statement at hand, names filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from position_ledger.migration.sql_text import Token, identifier, tokenize

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Case", "alter_column", "safe_form", "target_table"]


@dataclass(frozen=True, slots=True)
class Case:
    """What a finding is about: the statement, and the names that the server or the trace gave ("" for none).

    ``views`` are those that stand in the way of the statement, or that CASCADE would take along.
    """

    statement: str
    table: str = ""
    column: str = ""
    constraint: str = ""
    projected: bool = False
    views: tuple[str, ...] = ()


def safe_form(code: str, case: Case) -> str:
    """SQL (or a command) that reaches the same end safely; "" where the cause says it all."""
    make = _FORMS.get(code)
    return make(case).strip("\n") if make else ""


def _tokens(statement: str) -> list[Token]:
    return [token for token in tokenize(statement) if token.kind != "comment"]


def _words(tokens: list[Token]) -> list[str]:
    return [token.text.lower() for token in tokens]


def target_table(statement: str) -> str:
    """The table that an ALTER TABLE, UPDATE, DELETE, INSERT, CREATE INDEX or DROP TABLE names first; "" if none."""
    tokens = _tokens(statement)
    words = _words(tokens)
    if words[:1] == ["update"]:
        return _name(tokens[1:])
    for before in (["alter", "table"], ["drop", "table"], ["delete", "from"], ["insert", "into"], ["truncate"]):
        if words[: len(before)] == before:
            return _name(tokens[len(before) :])
    if words[:1] == ["create"] and "index" in words[:3] and "on" in words:
        return _name(tokens[words.index("on") + 1 :])
    return ""


def _name(tokens: list[Token]) -> str:
    """The first name, its schema left out."""
    rest = list(tokens)
    while rest and rest[0].text.lower() in {"if", "exists", "not", "only", "table"}:
        rest.pop(0)
    while len(rest) > 2 and rest[1].text == ".":  # noqa: PLR2004 - name, dot, name
        rest = rest[2:]
    return identifier(rest[0]) if rest and rest[0].kind in {"word", "name"} else ""


def alter_column(statement: str) -> str:
    """The column of the first ADD, ALTER, DROP or RENAME of an ALTER TABLE; "" if it is about something else."""
    tokens = _tokens(statement)
    words = _words(tokens)
    if words[:2] != ["alter", "table"]:
        return ""
    for place, word in enumerate(words):
        if place > 2 and word in {"add", "alter", "drop", "rename"}:  # noqa: PLR2004 - behind the table's name
            rest = tokens[place + 1 :]
            skipped = {"column", "if", "not", "exists"}
            while rest and rest[0].text.lower() in skipped:
                rest.pop(0)
            not_columns = {"constraint", "primary", "unique", "foreign", "check", "exclude", "to"}
            if not rest or rest[0].text.lower() in not_columns:
                return ""
            return identifier(rest[0]) if rest[0].kind in {"word", "name"} else ""
    return ""


def _table(case: Case) -> str:
    return case.table or target_table(case.statement) or "the_table"


def _column(case: Case) -> str:
    return case.column or alter_column(case.statement) or "the_column"


def _type(case: Case) -> str:
    """The type that the statement gives the column, as written."""
    tokens = _tokens(case.statement)
    words = _words(tokens)
    column = _column(case)
    for place, token in enumerate(tokens):
        is_column = token.kind in {"word", "name"} and identifier(token) == column
        if not is_column:
            continue
        rest = place + 1
        rest += (
            3 if words[rest : rest + 3] == ["set", "data", "type"] else 1 if words[rest : rest + 1] == ["type"] else 0
        )
        end = _end_of_type(words, rest)
        if end > rest:
            return case.statement[tokens[rest].start : tokens[end - 1].end]
    return "the_type"


def _end_of_type(words: list[str], start: int) -> int:
    """The first place outside of brackets that is no part of a type: numeric(8,2) is one."""
    depth = 0
    for place in range(start, len(words)):
        if depth == 0 and (words[place] in _TYPE_ENDS or words[place] in {",", ";"}):
            return place
        depth += {"(": 1, ")": -1}.get(words[place], 0)
    return len(words)


_TYPE_ENDS: Final = frozenset(
    {"not", "null", "default", "using", "check", "references", "unique", "primary", "collate"}
)


def _not_null(case: Case) -> str:
    table, column = _table(case), _column(case)
    add = (
        f"ALTER TABLE {table} ADD COLUMN {column} {_type(case)};\n" if "add" in _words(_tokens(case.statement)) else ""
    )
    return f"""
-- first file: the column may be null, and the rows that exist get a value
{add}UPDATE {table} SET {column} = <value> WHERE {column} IS NULL;
-- next file, when no row lacks it any more
ALTER TABLE {table} ADD CONSTRAINT {table}_{column}_given CHECK ({column} IS NOT NULL) NOT VALID;
ALTER TABLE {table} VALIDATE CONSTRAINT {table}_{column}_given;
ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL;
ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_given;
"""


def _clause_after(case: Case, *opening: str) -> str:
    """The text of the statement from these words on."""
    tokens = _tokens(case.statement)
    words = _words(tokens)
    for place in range(len(words)):
        if tuple(words[place : place + len(opening)]) == opening:
            return " ".join(case.statement[tokens[place].start :].rstrip("; ").split())
    return ""


def _foreign_key(case: Case) -> str:
    table = _table(case)
    name = case.constraint or f"{table}_fkey"
    clause = _clause_after(case, "foreign", "key") or "FOREIGN KEY (<column>) REFERENCES <parent> (<key>)"
    clause = clause.removesuffix(" NOT VALID").removesuffix(" not valid")
    return f"""
-- this file: new rows are checked from now on, old ones are not read
ALTER TABLE {table} ADD CONSTRAINT {name} {clause} NOT VALID;
-- a file of its own: reads the old rows while everybody goes on writing
ALTER TABLE {table} VALIDATE CONSTRAINT {name};
"""


def _missing_parents(case: Case) -> str:
    tokens = _tokens(case.statement)
    words = _words(tokens)
    try:
        after = words.index("references") + 1
        parent = _name(tokens[after:])
        key = words.index("key")
        column = identifier(tokens[key + 2]) if words[key + 1] == "(" else "<column>"
        of_parent = words.index("(", after)
        parent_key = identifier(tokens[of_parent + 1])
    except (ValueError, IndexError):
        parent, column, parent_key = "<parent>", "<column>", "<key>"
    table = _table(case)
    where = "in an earlier file, for this one changes a projected table" if case.projected else "in this file"
    return f"""
-- which rows have no parent
SELECT DISTINCT c.{column} FROM {table} AS c LEFT JOIN {parent} AS p ON p.{parent_key} = c.{column}
 WHERE c.{column} IS NOT NULL AND p.{parent_key} IS NULL;
-- before the constraint, {where}: enter the parents that are missing
INSERT INTO {parent} ({parent_key}, <…>) VALUES (<…>);
"""


def _type_change(case: Case) -> str:
    table, column, wanted = _table(case), _column(case), _type(case)
    return f"""
-- which rows do not fit (PostgreSQL 16 and newer)
SELECT {column} FROM {table} WHERE NOT pg_input_is_valid({column}::text, '{wanted}');
-- before the change, in this file: correct them
UPDATE {table} SET {column} = <value> WHERE NOT pg_input_is_valid({column}::text, '{wanted}');
ALTER TABLE {table} ALTER COLUMN {column} TYPE {wanted} USING {column}::{wanted};
"""


def _rewrite(case: Case) -> str:
    table, column, wanted = _table(case), _column(case), _type(case)
    return f"""
-- first file: a second column beside the first, no rewrite
ALTER TABLE {table} ADD COLUMN {column}_new {wanted};
-- then fill it, some thousand rows at a time, each in its own transaction
UPDATE {table} SET {column}_new = {column}::{wanted} WHERE <key> BETWEEN <from> AND <to>;
-- last file, in one moment
ALTER TABLE {table} RENAME COLUMN {column} TO {column}_old;
ALTER TABLE {table} RENAME COLUMN {column}_new TO {column};
"""


def _batched(case: Case) -> str:
    table = _table(case)
    return f"""
-- not in a migration: from a script, each turn in its own transaction, until it changes nothing
UPDATE {table} SET <…> WHERE <key> IN (
    SELECT <key> FROM {table} WHERE <not yet done> ORDER BY <key> LIMIT 5000 FOR UPDATE SKIP LOCKED);
"""


def _index(case: Case) -> str:
    tokens = _tokens(case.statement)
    words = _words(tokens)
    text = " ".join(case.statement.split())
    if "index" in words[:3] and "concurrently" not in words:
        at = tokens[words.index("index")].end
        text = " ".join((case.statement[:at] + " CONCURRENTLY" + case.statement[at:]).split())
    return f"""
-- a file of its own, with this line in its header:
-- Transactional: no
{text};
"""


def _outside(case: Case) -> str:
    words = _words(_tokens(case.statement))
    if "index" in words[:3] and words[:1] != ["reindex"]:
        return _index(case)
    if words[:1] == ["alter"] and "concurrently" in words:
        return "-- the same without CONCURRENTLY"
    return "-- run it by hand, it is no migration"


def _unique(case: Case) -> str:
    table, column = _table(case), case.constraint or "<columns>"
    if case.projected:
        return f"""
-- which values are there twice
SELECT <columns>, count(*) FROM {table} GROUP BY <columns> HAVING count(*) > 1;
-- the rows are what history says, so none can be removed here: choose a key that holds for them, or correct the events
-- that are wrong by events first
ALTER TABLE {table} ADD CONSTRAINT {case.constraint or "<name>"} UNIQUE (<columns that are also unique in history>);
"""
    return f"""
-- which values are there twice
SELECT <columns>, count(*) FROM {table} GROUP BY <columns> HAVING count(*) > 1;
-- before {column}, in this file: remove or change the duplicates
"""


def _check(case: Case) -> str:
    if case.projected:
        return f"""
-- the history is as it is: let the fold give what the CHECK allows, or
ALTER TABLE {_table(case)} ADD CONSTRAINT {case.constraint or "<name>"} CHECK (<also true for the rows of history>);
"""
    return f"""
-- new rows are checked from now on; correct the old ones, then validate in a file of its own
ALTER TABLE {_table(case)} ADD CONSTRAINT {case.constraint or "<name>"} CHECK (<…>) NOT VALID;
UPDATE {_table(case)} SET <…> WHERE NOT (<…>);
ALTER TABLE {_table(case)} VALIDATE CONSTRAINT {case.constraint or "<name>"};
"""


def _used_by_others(case: Case) -> str:
    views = case.views or ("<view>",)
    drops = "\n".join(f"DROP VIEW {view};" for view in views)
    again = "\n".join(f"CREATE VIEW {view} AS SELECT <columns> FROM {_table(case)};" for view in reversed(views))
    return f"""
-- drop what uses it by name, never with CASCADE, and make it again in the same file
{drops}
{_without_cascade(case.statement)};
{again}
GRANT SELECT ON {", ".join(views)} TO position_ledger_reader, position_ledger_projector;
"""


def _without_cascade(statement: str) -> str:
    """The statement on one line, so that the server refuses it for what still uses the thing that it drops."""
    text = statement
    for token in reversed(_tokens(statement)):
        if token.kind == "word" and token.text.lower() == "cascade":
            text = text[: token.start] + text[token.end :]
    return " ".join(text.split()).rstrip("; ")


def _rename(case: Case) -> str:
    table, column = _table(case), _column(case)
    return f"""
-- first file: both names, so that code with either goes on
ALTER TABLE {table} ADD COLUMN <new name> <type>;
UPDATE {table} SET <new name> = {column};
-- last file, when no code names {column} any more
ALTER TABLE {table} DROP COLUMN {column};
"""


def _rows_of_the_log(case: Case) -> str:
    return f"""
-- leave the statement out: change the fold in projections/{_table(case)}.py, then
--   rebuild-projection {_table(case)} --changed <column>
"""


def _value_of_the_fold(case: Case) -> str:
    return f"""
-- no default: the fold gives the value, from the event
ALTER TABLE {_table(case)} ADD COLUMN {_column(case)} {_type(case)};
"""


def _plain_table(case: Case) -> str:
    return f"""
-- leave it out of {_table(case)}, which every rebuild makes anew from columns, constraints, indexes, triggers and grants;
-- what a role may see of its rows, a view can say
CREATE VIEW <view> WITH (security_barrier) AS SELECT <columns> FROM {_table(case)} WHERE <what may be seen>;
"""


def _drop(case: Case) -> str:
    return f"""
-- first a release whose code names it no more; then this file, with the rows kept elsewhere if anybody may want them
CREATE TABLE {_table(case)}_kept AS SELECT <columns> FROM {_table(case)};
"""


def _null_in_fold(case: Case) -> str:
    return f"""
-- if it may really be unknown
ALTER TABLE {_table(case)} ALTER COLUMN {_column(case)} DROP NOT NULL;
-- else let every fold that makes a row give {_column(case)} a value
"""


def _next_file(_case: Case) -> str:
    return """
-- this file adds the value and does not use it
ALTER TYPE <type> ADD VALUE '<value>';
-- the next file, which is a transaction of its own, uses it
"""


_FORMS: Final[dict[str, Callable[[Case], str]]] = {
    "not-null-violation": _not_null,
    "adding-required-field": _not_null,
    "adding-not-nullable-field": _not_null,
    "foreign-key-violation": _missing_parents,
    "adding-foreign-key-constraint": _foreign_key,
    "type-mismatch": _type_change,
    "table-rewrite": _rewrite,
    "changing-column-type": _rewrite,
    "unbatched-write": _batched,
    "not-in-a-transaction": _outside,
    "require-concurrent-index-creation": _index,
    "unique-violation": _unique,
    "check-violation": _check,
    "used-by-others": _used_by_others,
    "cascade-drops": _used_by_others,
    "renaming-column": _rename,
    "dml-on-projected": _rows_of_the_log,
    "changing-default": _value_of_the_fold,
    "not-projectable": _plain_table,
    "drop-of-used": _drop,
    "fold-gives-null": _null_in_fold,
    "new-value-in-use": _next_file,
}
