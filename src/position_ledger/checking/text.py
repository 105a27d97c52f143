"""SQL as the code spells it: text with places where a value is put in later, and the line where it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Final

from position_ledger.errors import MigrationError
from position_ledger.migration.sql_text import Token, split_statements, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TABLE: Final = "a projection's table"
KEY: Final = "a projection's key"
SCHEMA: Final = "the schema"
"""Names of holes that are known by their kind: the same statement for every projection, or in whichever schema."""

DESCRIBED: Final = frozenset({"select", "with", "insert", "update", "delete", "merge", "values", "table"})
"""First words of statements that the server analyses when it parses them."""
_DEFINING: Final = frozenset({"alter", "cluster", "comment", "create", "drop", "grant", "refresh", "reindex", "revoke"})
UTILITY: Final = _DEFINING | {"analyze", "call", "copy", "do", "explain", "lock", "truncate", "vacuum"}
"""First words of statements that the server analyses only when it runs them."""
_TRANSACTION: Final = frozenset({"begin", "commit", "release", "rollback", "savepoint", "start"})
ABOUT_THE_SESSION: Final = _TRANSACTION | {
    "deallocate",
    "discard",
    "listen",
    "notify",
    "reset",
    "set",
    "show",
    "unlisten",
}
"""First words of statements that name nothing of the schema."""
STARRED_BEFORE: Final = frozenset({"select", "distinct", "all", "returning"})
_FIRST_WORD: Final = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+)\b", re.DOTALL)
_COPY: Final = re.compile(
    r"\s*COPY\s+(?P<table>[^\s(]+)\s*(?:\((?P<columns>[^()]*)\)\s*)?\b(?:FROM|TO)\s", re.IGNORECASE
)
_LOCK: Final = re.compile(r"\s*LOCK\s+(?:TABLE\s+)?(?P<tables>[^;]*?)\s+IN\s+[A-Z ]+MODE\b", re.IGNORECASE)
_PLACEHOLDER: Final = re.compile(r"%(?:(?P<percent>%)|(?:\((?P<name>[^)]+)\))?[sbt])")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a statement stands."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{_shortest(self.file)}:{self.line}"


def _shortest(file: Path) -> Path:
    """Relative to the working directory where it lies in it: what an editor opens."""
    try:
        return file.relative_to(Path.cwd())
    except ValueError:
        return file


@dataclass(frozen=True, slots=True)
class Hole:
    """What is put into the text where the code runs; ``name`` as in {name}, "" for {} and in f-strings."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class SqlText:
    """Text and holes in order. ``families`` are the Python types of parameters, by number from 0 or by name."""

    parts: tuple[str | Hole, ...]
    place: Place
    families: Mapping[int | str, str] = field(default_factory=dict, compare=False)
    is_whole_lines: bool = False
    """Whether each line of the text is a line of the file, as in a triple-quoted string."""
    has_parameters: bool = False
    is_executed: bool = False
    """Whether the code is seen to run it; else it looks like SQL."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is put in later."""
        return all(isinstance(part, str) for part in self.parts)

    @property
    def text(self) -> str:
        """The text, with {} for each hole."""
        return "".join(part if isinstance(part, str) else "{}" for part in self.parts)

    @property
    def excerpt(self) -> str:
        """The first 60 characters on one line, for messages."""
        flat = " ".join(self.text.split())
        return flat if len(flat) <= 60 else flat[:57] + "..."  # noqa: PLR2004 - said in the docstring

    @property
    def first_word(self) -> str:
        """The first word in lower case, behind comments and brackets; "" if there is none."""
        match = _FIRST_WORD.match(self.text)
        return match[1].lower() if match else ""

    def place_of(self, text: str, offset: int | None) -> Place:
        """The line of the file in which a character stands; ``text`` is this text as it was sent, line by line."""
        if offset is None or not self.is_whole_lines:
            return self.place
        return replace(self.place, line=self.place.line + text.count("\n", 0, offset))

    def pattern(self) -> re.Pattern[str]:
        """What a statement looks like that was made from this one."""
        inside = (re.escape(part) if isinstance(part, str) else ".*" for part in self.parts)
        return re.compile("".join(inside), re.DOTALL)


def looks_like_sql(text: SqlText) -> bool:
    """Whether a string that nobody visibly executes is a statement: it begins with an upper-case SQL verb and goes on."""
    match = _FIRST_WORD.match(text.text)
    flat, verb = text.text[match.start(1) :] if match else "", text.first_word
    if verb not in DESCRIBED | {"copy", "lock"} or not flat.startswith(verb.upper()) or len(flat.split()) < 2:  # noqa: PLR2004 - a verb and what it is about
        return False
    words = {word.strip("(),;").upper() for word in flat.split()[1:]}
    needed = {
        "insert": {"INTO"},
        "update": {"SET"},
        "delete": {"FROM"},
        "merge": {"INTO"},
        "with": {"AS"},
        "lock": {"IN"},
        "copy": {"FROM", "TO"},
        "table": set(),
        "values": set(),
        "select": set(),
    }[verb]
    return not needed or bool(needed & words)


def with_braces(text: str) -> tuple[str | Hole, ...]:
    """Text for ``format`` as parts; a text that ``format`` would refuse has no holes."""
    parts: list[str | Hole] = []
    try:
        for literal, name, spec, conversion in Formatter().parse(text):
            if literal:
                parts.append(literal)
            if spec or conversion:
                return (text,)
            if name is not None:
                parts.append(Hole(name))
    except ValueError:
        return (text,)
    return tuple(parts)


def has_open_braces(text: str) -> bool:
    """Whether {name} stands outside quotes, where SQL knows no brace: the text is one for ``format``."""
    if "{" not in text:
        return False
    try:
        return any(token.text == "{" for token in tokenize(text))
    except MigrationError:
        return False


def filled(parts: Sequence[str | Hole], values: Mapping[str, Sequence[str | Hole]]) -> tuple[str | Hole, ...]:
    """Put values into the holes that they have a name or, for {}, a number for."""
    answer: list[str | Hole] = []
    number = 0
    for part in parts:
        if isinstance(part, str):
            answer.append(part)
            continue
        name = part.name
        if not name:
            name, number = str(number), number + 1
        answer += values.get(name, (part,))
    return joined(answer)


def joined(parts: Sequence[str | Hole]) -> tuple[str | Hole, ...]:
    """The same with neighbouring texts made one."""
    answer: list[str | Hole] = []
    for part in parts:
        if isinstance(part, str) and answer and isinstance(answer[-1], str):
            answer[-1] += part
        else:
            answer.append(part)
    return tuple(answer)


def numbered(text: str, *, has_parameters: bool) -> tuple[str, list[int | str]]:
    """The statement with $1, $2 … as the driver sends it, and for each of them its number or name in the code.

    Without parameters the driver leaves percent signs alone.
    """
    if not has_parameters and not any(not match["percent"] for match in _PLACEHOLDER.finditer(text)):
        return text, []
    order: list[int | str] = []

    def number(match: re.Match[str]) -> str:
        if match["percent"]:
            return "%"
        key: int | str = match["name"] or len(order)
        if key not in order:
            order.append(key)
        return f"${order.index(key) + 1}"

    return _PLACEHOLDER.sub(number, text), order


def describable(text: str) -> str | None:
    """The statement in a form that the server analyses, None for a utility statement that has none.

    COPY with its columns and LOCK are asked for as the SELECT of the same names.
    """
    match = _COPY.match(text)
    if match:
        return " ".join(["SELECT", match["columns"] or "", "FROM", match["table"]])
    match = _LOCK.match(text)
    if match:
        return " ".join(["SELECT", "FROM", match["tables"].replace(" ONLY ", " ")])
    first = _FIRST_WORD.match(text)
    return text if first and first[1].lower() in DESCRIBED else None


_MAY_HOLD_SEVERAL = re.compile(r";|--|/\*")
"""Without any of these a text is one statement from its first character to its last, and need not be cut up."""


def statements_in(text: str) -> list[tuple[int, str]]:
    """The statements of a text that holds several, each with its offset; a text that cannot be cut is one."""
    plain = text.strip()
    if plain and not _MAY_HOLD_SEVERAL.search(plain):
        return [(text.index(plain), plain)]
    try:
        found = split_statements(text, list(tokenize(text)))
    except MigrationError:
        return [(0, text)]
    return [(one.tokens[0].start, one.text) for one in found]


def stars(text: str) -> Iterator[int]:
    """The offset of each * that stands for a table's columns: SELECT *, t.*, RETURNING *; not count(*) or 2 * 3."""
    if "*" not in text:
        return
    before: Token | None = None
    earlier: Token | None = None
    for token in _tokens(text):
        if token.text == "*" and before is not None and _is_list_start(before, earlier):
            yield token.start
        earlier, before = before, token


def _is_list_start(before: Token, earlier: Token | None) -> bool:
    if before.kind == "word":
        return before.text.lower() in STARRED_BEFORE
    return before.text == "," or (before.text == "." and earlier is not None and earlier.kind in {"word", "name"})


def _tokens(text: str) -> list[Token]:
    try:
        return [token for token in tokenize(text) if token.kind != "comment"]
    except MigrationError:
        return []
