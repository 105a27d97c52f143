"""What a verification statement has to return, declared on the line before it; without one: exactly one true.

-- expect: true          one row, one column, true (the default)
-- expect: no rows       nothing
-- expect: 3 rows        that many rows, whatever is in them
-- expect: 42            one row with one number, written exactly so
-- expect: 'some text'   one row with one text; a quote in it is written twice
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from position_ledger.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from position_ledger.migration.sql_text import Statement, Token

__all__ = ["Expectation", "expectations_of", "parse_expectation"]

FORMS: Final = "true, no rows, N rows, a number such as 42, or a text such as 'abc'"
_LINE = re.compile(r"--\s*expect\b(?P<rest>.*)", re.IGNORECASE)
_ROWS = re.compile(r"(?P<count>\d{1,9}) rows?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TEXT = re.compile(r"'(?P<text>(?:[^']|'')*)'")
_SHOWN_ROWS: Final = 2


@dataclass(frozen=True, slots=True)
class Expectation:
    """A number of rows, or the one value of the one row as the server writes it; neither: the one value is true."""

    rows: int | None = None
    value: str | None = None

    def __str__(self) -> str:
        if self.rows is not None:
            return "no row" if self.rows == 0 else f"{self.rows} row{'' if self.rows == 1 else 's'}"
        return "one row with one true" if self.value is None else f"one row with the one value {self.value!r}"

    def is_met(self, rows: Sequence[Sequence[object]], count: int) -> bool:
        """Whether a result is as declared: ``rows`` are its first few, ``count`` is how many it has."""
        if self.rows is not None:
            return count == self.rows
        if count != 1 or len(rows[0]) != 1:
            return False
        found = rows[0][0]
        return found is True if self.value is None else _text_of(found) == self.value

    def hint(self, rows: Sequence[Sequence[object]]) -> str:
        """What to do where a value is of a type that is not compared, such as a date or an enum; "" otherwise."""
        if self.value is None or not rows or rows[0][0] is None or _text_of(rows[0][0]) is not None:
            return ""
        return "cast the value to text to compare it, or "


def _text_of(value: object) -> str | None:
    """A number or text as the server writes it; None for null and every other type, which a query can cast."""
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def returned(rows: Sequence[Sequence[object]], count: int) -> str:
    """A result in words, for the message of a verification that does not hold."""
    if not count:
        return "no row"
    shown = "; ".join(repr(tuple(row)) for row in rows[:_SHOWN_ROWS])
    return shown if count == 1 else f"{count} rows, {shown}"


def parse_expectation(text: str) -> Expectation:
    """What stands behind ``-- expect:``; MigrationError for anything that is none of the forms."""
    if text == "true":
        return Expectation()
    if text == "no rows":
        return Expectation(rows=0)
    if match := _ROWS.fullmatch(text):
        return Expectation(rows=int(match["count"]))
    if _NUMBER.fullmatch(text):
        return Expectation(value=text)
    if match := _TEXT.fullmatch(text):
        return Expectation(value=match["text"].replace("''", "'"))
    raise MigrationError(f"'-- expect: {text}' is no expectation; write {FORMS}")


def expectations_of(
    text: str, tokens: Sequence[Token], statements: Sequence[Statement], *, is_verification: bool
) -> tuple[Expectation, ...]:
    """One expectation for each statement of a verification; MigrationError for a declaration that would not count.

    ``tokens`` are those of the section, ``text`` is the whole file.
    """
    declared: dict[int, Expectation] = {}
    for token in tokens:
        match = _LINE.fullmatch(token.text) if token.kind == "comment" else None
        if match is not None:
            _take(declared, text, token, match["rest"], is_verification=is_verification)
    if not is_verification:
        return ()
    found = tuple(declared.pop(statement.line, Expectation()) for statement in statements)
    if declared:
        raise MigrationError(
            f"line {min(declared) - 1}: '-- expect' belongs to no statement; "
            "put it on the line directly before the SELECT that it speaks of"
        )
    return found


def _take(declared: dict[int, Expectation], text: str, token: Token, rest: str, *, is_verification: bool) -> None:
    """Read one declaration; it speaks of the statement that begins on the next line."""
    if not is_verification:
        if not rest.startswith(":"):
            return  # a remark that begins with that word
        raise MigrationError(f"line {token.line}: '-- expect' counts in '-- verify' only; move it there")
    is_alone = not text[text.rfind("\n", 0, token.start) + 1 : token.start].strip()
    if not is_alone or not rest.startswith(":"):
        raise MigrationError(
            f"line {token.line}: {token.text!r} does not count; write '-- expect: …' on a line of its own, "
            "directly before the SELECT that it speaks of"
        )
    try:
        declared[token.line + 1] = parse_expectation(rest[1:].strip())
    except MigrationError as error:
        raise MigrationError(f"line {token.line}: {error}") from error
