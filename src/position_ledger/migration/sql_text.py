"""Cut PostgreSQL text into tokens and statements, the way the server's own scanner would.

Only what decides where a statement ends is recognised: strings, quoted names, dollar quotes, nested comments, brackets
and ``BEGIN ATOMIC`` bodies (scan.l and psqlscan.l of PostgreSQL, with standard_conforming_strings on).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from position_ledger.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Statement", "Token", "identifier", "split_statements", "tokenize"]

Kind = Literal["word", "string", "name", "dollar", "comment", "number", "symbol"]

_IDENT_START = "A-Za-z_\u0080-\U0010ffff"
# An E'' string goes on, still with backslashes, in the next literal when only white space with a line end is between.
_CONTINUED = r"(?:(?:[ \t\f\v]|--[^\n]*)*+\n(?:\s|--[^\n]*\n)*+'(?:[^'\\]|\\.|'')*+')*"
_TOKEN = re.compile(
    rf"""
      (?P<space>\s+)
    | (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<escape>[eE]'(?:[^'\\]|\\.|'')*+'{_CONTINUED})
    | (?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*+')
    | (?P<name>(?:[uU]&)?"(?:[^"]|"")*+")
    | (?P<open>[eE]'|['"])
    | (?P<dollar>\$(?:[{_IDENT_START}][{_IDENT_START}0-9]*+)?\$)
    | (?P<word>[{_IDENT_START}][{_IDENT_START}0-9$]*+)
    | (?P<number>\d[0-9A-Za-z_.]*+|\$\d+)
    | (?P<symbol>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_KINDS: dict[str, Kind] = {
    "comment": "comment",
    "escape": "string",
    "string": "string",
    "name": "name",
    "word": "word",
    "number": "number",
    "symbol": "symbol",
}


@dataclass(frozen=True, slots=True)
class Token:
    """One token; ``start`` and ``end`` are offsets in the text, ``line`` counts from 1."""

    kind: Kind
    text: str
    start: int
    line: int

    @property
    def end(self) -> int:
        """The offset just behind the token."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its semicolon; ``line`` is where its first token stands, counted from 1 in the file."""

    text: str
    line: int
    tokens: tuple[Token, ...] = field(repr=False, compare=False)

    @property
    def words(self) -> tuple[str, ...]:
        """The bare words in lower case, in order: enough to tell what kind of statement it is."""
        return tuple(token.text.lower() for token in self.tokens if token.kind == "word")

    @property
    def excerpt(self) -> str:
        """The first 80 characters on one line, for messages."""
        flat = " ".join(self.text.split())
        return flat if len(flat) <= 80 else flat[:77] + "..."  # noqa: PLR2004 - said in the docstring


def tokenize(text: str) -> Iterator[Token]:
    """Yield the tokens of text without white space; raise MigrationError where a quote or comment never ends."""
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None, "the last alternative matches any character"  # noqa: S101
        end = _end_of(match, text, line)
        if match.lastgroup != "space":
            yield Token(_kind_of(match), text[position:end], position, line)
        line += text.count("\n", position, end)
        position = end


def _kind_of(match: re.Match[str]) -> Kind:
    group = match.lastgroup or "symbol"
    return {"block": "comment", "dollar": "dollar"}.get(group) or _KINDS[group]  # type: ignore[return-value]


def _end_of(match: re.Match[str], text: str, line: int) -> int:
    if match.lastgroup == "block":
        return _end_of_block(text, match.start(), line)
    if match.lastgroup == "dollar":
        closing = text.find(match.group(), match.end())
        if closing < 0:
            raise _unterminated(f"the dollar quote {match.group()}", line)
        return closing + len(match.group())
    if match.lastgroup == "open":
        raise _unterminated("the quoted name" if match.group() == '"' else "the string", line)
    return match.end()


def _end_of_block(text: str, start: int, line: int) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise _unterminated("the comment", line)


def _unterminated(what: str, line: int) -> MigrationError:
    return MigrationError(f"line {line}: {what} that begins here never ends; close it")


def split_statements(text: str, tokens: list[Token]) -> tuple[Statement, ...]:
    """Group tokens of text into statements at the semicolons that really end one; comments alone make no statement."""
    statements: list[Statement] = []
    current: list[Token] = []
    nesting = _Nesting()
    for token in tokens:
        if token.kind == "comment":
            continue
        if token.text == ";" and nesting.is_outside:
            statements += _statement(text, current)
            current, nesting = [], _Nesting()
            continue
        nesting.take(token)
        current.append(token)
    return (*statements, *_statement(text, current))


def _statement(text: str, tokens: list[Token]) -> list[Statement]:
    if not tokens:
        return []
    return [Statement(text[tokens[0].start : tokens[-1].end], tokens[0].line, tuple(tokens))]


@dataclass(slots=True)
class _Nesting:
    """Whether a semicolon here would end the statement: not inside brackets, nor inside a BEGIN ATOMIC body."""

    brackets: int = 0
    atomic: int = 0
    leading: list[str] = field(default_factory=list)
    previous: str = ""

    @property
    def is_outside(self) -> bool:
        return self.brackets == 0 and self.atomic == 0

    def take(self, token: Token) -> None:
        if token.kind == "symbol":
            self.brackets = max(0, self.brackets + {"(": 1, ")": -1}.get(token.text, 0))
        elif token.kind == "word":
            self._take_word(token.text.lower())
        self.previous = token.text.lower()

    def _take_word(self, word: str) -> None:
        if len(self.leading) < 4:  # noqa: PLR2004 - create or replace function
            self.leading.append(word)
        # After a dot or AS even a reserved word is only a label: `t.end`, `SELECT 1 AS end`.
        if not self._in_routine or self.previous in {".", "as"}:
            return
        if (word == "atomic" and self.previous == "begin") or (self.atomic and word == "case"):
            self.atomic += 1
        elif self.atomic and word == "end":
            self.atomic -= 1

    @property
    def _in_routine(self) -> bool:
        words = [word for word in self.leading if word not in {"or", "replace"}]
        return words[:1] == ["create"] and words[1:2] in (["function"], ["procedure"])


def identifier(token: Token) -> str:
    """The name a token stands for: folded to lower case, or the inside of its double quotes."""
    if token.kind == "name":
        return token.text[1:-1].replace('""', '"')
    return token.text.lower()
