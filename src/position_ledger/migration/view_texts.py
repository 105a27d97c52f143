"""The views that hang on a column, as the migrations have written them: a change of its type has to make them again.

Read from the texts, without a database: a view that is put together where a migration runs is not found, and then the
server, or the plan, names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from position_ledger.migration.sql_text import identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.sql_text import Statement, Token

__all__ = ["ViewText", "views_on"]


class ViewText(NamedTuple):
    """A view: the statement that makes it, and those that comment on it, grant it or give it away, in order."""

    name: str
    statements: tuple[str, ...]


def views_on(files: Iterable[MigrationFile], table: str, column: str) -> tuple[ViewText, ...]:
    """The views that name table and column, and those that read them; each after the ones that it reads."""
    made = _made(files)
    found: list[str] = []
    for name, statements in made.items():  # in the order in which they were made, so what is read comes first
        names = _names(statements[0].tokens)
        if {table, column} <= names or names & set(found):
            found.append(name)
    return tuple(ViewText(name, tuple(one.text.strip() for one in made[name])) for name in found)


def _made(files: Iterable[MigrationFile]) -> dict[str, list[Statement]]:
    """Every view that is there after the files, with what was said of it since it was made."""
    made: dict[str, list[Statement]] = {}
    for statement in (one for file in files for one in file.forward.statements):
        words = statement.words
        after = _after_view(statement.tokens)
        if words[:2] == ("drop", "view"):
            for name in _names(after) & made.keys():
                del made[name]
        elif words[:2] == ("create", "view") or words[:4] == ("create", "or", "replace", "view"):
            name = _first_name(after)
            said = made.get(name, [])[1:] if "replace" in words[:3] else []
            made.setdefault(name, [])
            made[name] = [statement, *said]
        elif words[:1] in {("comment",), ("grant",), ("revoke",)} or words[:2] == ("alter", "view"):
            for name in _names(statement.tokens) & made.keys():
                made[name].append(statement)
    return made


def _names(tokens: Iterable[Token]) -> set[str]:
    return {identifier(token) for token in tokens if token.kind in {"word", "name"}}


def _after_view(tokens: Sequence[Token]) -> list[Token]:
    """What stands behind the first word VIEW."""
    plain = [token for token in tokens if token.kind != "comment"]
    place = next((number for number, token in enumerate(plain) if token.text.lower() == "view"), len(plain))
    return plain[place + 1 :]


def _first_name(tokens: Sequence[Token]) -> str:
    """A name, its schema left out."""
    rest = list(tokens)
    while len(rest) > 1 and rest[1].text == ".":
        rest = rest[2:]
    return identifier(rest[0]) if rest else ""
