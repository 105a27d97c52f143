"""The one statement that may run outside a transaction: an index built (or dropped) CONCURRENTLY."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from position_ledger.errors import MigrationError
from position_ledger.migration.sql_text import Token, identifier

if TYPE_CHECKING:
    from position_ledger.migration.sql_text import Statement

__all__ = ["ConcurrentIndex", "created_index", "dropped_index", "without_concurrently"]


@dataclass(frozen=True, slots=True)
class ConcurrentIndex:
    """An index that a file builds CONCURRENTLY, by its name within the ledger's schema."""

    name: str
    statement: Statement


def created_index(statement: Statement) -> ConcurrentIndex:
    """Read the index name of a CREATE INDEX CONCURRENTLY; raise MigrationError for any other statement."""
    tokens = list(statement.tokens)
    words = [token.text.lower() for token in tokens]
    if words[1:2] == ["unique"]:
        del words[1], tokens[1]
    if words[:3] != ["create", "index", "concurrently"]:
        raise MigrationError(
            f"line {statement.line}: a file with 'Transactional: no' holds one CREATE INDEX CONCURRENTLY, "
            f"not {statement.excerpt!r}; leave out the header line for anything else"
        )
    if words[3:4] == ["if"]:
        raise MigrationError(
            f"line {statement.line}: IF NOT EXISTS would take an index of another making for this one; leave it out"
        )
    if words[3:4] == ["on"]:
        raise MigrationError(f"line {statement.line}: an index built CONCURRENTLY needs a name of its own; add one")
    return ConcurrentIndex(_plain_name(tokens[3:], statement), statement)


def dropped_index(statement: Statement) -> str:
    """Read the index name of a DROP INDEX CONCURRENTLY [IF EXISTS]; raise MigrationError for anything else."""
    tokens = list(statement.tokens)
    words = [token.text.lower() for token in tokens]
    if words[:3] != ["drop", "index", "concurrently"]:
        raise MigrationError(
            f"line {statement.line}: the rollback of a file with 'Transactional: no' is one DROP INDEX CONCURRENTLY, "
            f"not {statement.excerpt!r}; write that"
        )
    return _plain_name(tokens[5:] if words[3:5] == ["if", "exists"] else tokens[3:], statement)


def _plain_name(tokens: list[Token], statement: Statement) -> str:
    if not tokens or tokens[0].kind not in {"word", "name"} or (len(tokens) > 1 and tokens[1].text in {".", ","}):
        raise MigrationError(
            f"line {statement.line}: name exactly one index, without a schema, in {statement.excerpt!r}"
        )
    return identifier(tokens[0])


def without_concurrently(statement: Statement) -> str:
    """The statement as it may run inside a transaction, where nobody else can be in the way."""
    for token in statement.tokens[:4]:
        if token.text.lower() == "concurrently":
            at = token.start - statement.tokens[0].start
            return statement.text[:at] + statement.text[at + len(token.text) :]
    return statement.text
