"""Which statements of a section may write rows: what they did is in no catalogue, so a comparison cannot prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from position_ledger.migration.files import Section
    from position_ledger.migration.sql_text import Statement

__all__ = ["row_statements"]

_NO_ROWS: Final = frozenset(
    {"create", "alter", "drop", "comment", "grant", "revoke", "set", "reset", "lock", "reindex", "analyze", "security"}
)


def row_statements(section: Section) -> tuple[Statement, ...]:
    """Statements that are not plainly about structure: DML, DO, CALL, SELECT of a function, CREATE TABLE AS."""
    return tuple(statement for statement in section.statements if _may_write(statement))


def _may_write(statement: Statement) -> bool:
    words = statement.words
    if words[:1] and words[0] not in _NO_ROWS:
        return True
    makes_table = words[:1] == ("create",) and "table" in words[:4]
    return makes_table and bool({"select", "values", "execute"} & set(words)) and "as" in words
