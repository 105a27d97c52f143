"""The one statement that may run outside a transaction: an index built or dropped CONCURRENTLY."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from position_ledger.errors import MigrationError
from position_ledger.migration.sql_text import Token, identifier

if TYPE_CHECKING:
    from position_ledger.migration.sql_text import Statement

__all__ = ["ConcurrentIndex", "concurrent_index", "instead_of_inside", "instead_of_outside", "without_concurrently"]


@dataclass(frozen=True, slots=True)
class ConcurrentIndex:
    """An index that a file builds CONCURRENTLY and its rollback drops, by its name within the ledger's schema.

    With ``is_dropped`` it is the other way round; ``statement`` is the one that builds it.
    """

    name: str
    statement: Statement
    is_dropped: bool = False


def concurrent_index(forward: Statement, rollback: Statement) -> ConcurrentIndex:
    """Read a file outside transactions: one index is built and dropped, or dropped and built, CONCURRENTLY.

    Raises MigrationError, with what to write instead, for anything else.
    """
    if _words(forward)[:2] != ["drop", "index"]:
        index = _created_index(forward)
        if _dropped_index(rollback) != index.name:
            raise MigrationError(
                f"the rollback drops another index than the {index.name!r} that the file builds; name that one"
            )
        return index
    dropped = _dropped_index(forward)
    if _words(rollback)[:1] == ["drop"]:
        raise MigrationError(
            f"line {rollback.line}: the rollback of a file that drops the index {dropped!r} is the "
            f"CREATE INDEX CONCURRENTLY that makes it again, not {rollback.excerpt!r}; write that"
        )
    index = _created_index(rollback)
    if index.name != dropped:
        raise MigrationError(
            f"the rollback builds another index than the {dropped!r} that the file drops; name that one"
        )
    return replace(index, is_dropped=True)


_NOT_SCHEMA: Final = frozenset({"reindex", "vacuum", "analyze", "cluster"})


def instead_of_outside(statement: Statement) -> str:
    """What to do with a statement that does not belong into a file outside transactions."""
    words = _words(statement)
    if words[:1] and words[0] in _NOT_SCHEMA:
        return f"{words[0].upper()} changes no schema: run it by hand, it needs no migration"
    if words[:2] == ["alter", "type"]:
        return "leave out the header line, it runs in a transaction; use the new value in a later file"
    if words[:2] in (["create", "index"], ["create", "unique"], ["drop", "index"]):
        return f"write {' '.join(words[: words.index('index') + 1]).upper()} CONCURRENTLY, or leave out the header line"
    if "concurrently" in words:
        return "leave out CONCURRENTLY and the header line; it then runs in a transaction"
    if words[:2] in (["alter", "system"], ["create", "database"], ["drop", "database"]) or "tablespace" in words[:2]:
        return "it is about the server, not the schema: run it by hand"
    return "leave out the header line for anything else"


def instead_of_inside(statement: Statement) -> str:
    """What to do with a statement that the server refuses inside a transaction."""
    words = _words(statement)
    if words[:1] and words[0] in _NOT_SCHEMA:
        return instead_of_outside(statement)
    if "index" in words[:3]:
        return "put the one statement in a file with '-- Transactional: no'"
    return "leave out CONCURRENTLY" if "concurrently" in words else "it is no migration: run it by hand"


def _words(statement: Statement) -> list[str]:
    return [token.text.lower() for token in statement.tokens]


def _created_index(statement: Statement) -> ConcurrentIndex:
    """Read the index name of a CREATE INDEX CONCURRENTLY; raise MigrationError for any other statement."""
    tokens = list(statement.tokens)
    words = _words(statement)
    if words[1:2] == ["unique"]:
        del words[1], tokens[1]
    if words[:3] != ["create", "index", "concurrently"]:
        raise MigrationError(
            f"line {statement.line}: a file with 'Transactional: no' holds one CREATE INDEX CONCURRENTLY "
            f"or DROP INDEX CONCURRENTLY, not {statement.excerpt!r}; {instead_of_outside(statement)}"
        )
    if words[3:4] == ["if"]:
        raise MigrationError(
            f"line {statement.line}: IF NOT EXISTS would take an index of another making for this one; leave it out"
        )
    if words[3:4] == ["on"]:
        raise MigrationError(f"line {statement.line}: an index built CONCURRENTLY needs a name of its own; add one")
    return ConcurrentIndex(_plain_name(tokens[3:], statement), statement)


def _dropped_index(statement: Statement) -> str:
    """Read the index name of a DROP INDEX CONCURRENTLY [IF EXISTS]; raise MigrationError for anything else."""
    tokens = list(statement.tokens)
    words = _words(statement)
    if words[:3] != ["drop", "index", "concurrently"]:
        raise MigrationError(
            f"line {statement.line}: a file with 'Transactional: no' drops an index with one DROP INDEX CONCURRENTLY, "
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
