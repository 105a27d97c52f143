"""Which statements of a section may write rows: what they did is in no catalogue, so a comparison cannot prove it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from position_ledger.migration.files import Section
    from position_ledger.migration.sql_text import Statement

__all__ = ["row_statements"]

_NO_ROWS: Final = frozenset(
    {"create", "alter", "drop", "comment", "grant", "revoke", "set", "reset", "lock", "reindex", "analyze", "security"}
)
_QUERIES: Final = (("select",), ("with",), ("values",))
_BEFORE_BRACKETS: Final = frozenset(
    {"in", "exists", "as", "any", "all", "some", "values", "where", "and", "or", "not", "select", "from", "on", "count"}
)
_WRITES: Final = frozenset({"insert", "update", "delete", "merge", "into"})


def row_statements(section: Section) -> tuple[Statement, ...]:
    """Statements that are not plainly about structure: DML, DO, CALL, SELECT of a function, CREATE TABLE AS."""
    return tuple(statement for statement in section.statements if _may_write(statement))


def _may_write(statement: Statement) -> bool:
    words = statement.words
    if words[:1] in _QUERIES:
        return bool(_WRITES & set(words)) or _calls(statement)
    if words[:1] and words[0] not in _NO_ROWS:
        return True
    makes_table = words[:1] == ("create",) and "table" in words[:4]
    return makes_table and bool({"select", "values", "execute"} & set(words)) and "as" in words


def _calls(statement: Statement) -> bool:
    """Whether something stands before a bracket, as the name of a function does: it may write whatever it likes."""
    return any(
        after.text == "(" and before.kind in {"word", "name"} and before.text.lower() not in _BEFORE_BRACKETS
        for before, after in pairwise(statement.tokens)
    )
