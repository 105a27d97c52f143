"""Read a folder of numbered SQL migrations into checked, frozen values; nothing here touches a database.

A file is ``NNN_descriptive_name.sql``: a header of ``-- Key: value`` lines, then three sections, each begun by a line
of its own: ``-- forward``, ``-- verify``, ``-- rollback``. Such a line inside a string, a dollar quote or a block
comment is text. A statement of ``-- verify`` may be preceded by ``-- expect: …`` (module `expectations`). Checksums
are SHA-256 over the bytes with every line end made LF.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from position_ledger.errors import MigrationError
from position_ledger.migration.concurrent import concurrent_index
from position_ledger.migration.expectations import Expectation, expectations_of
from position_ledger.migration.sql_text import Statement, Token, identifier, split_statements, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from importlib.resources.abc import Traversable

    from position_ledger.migration.concurrent import ConcurrentIndex

__all__ = ["Checksums", "MigrationFile", "Section", "load_folder", "ordered", "parse_file"]

HEADER_KEYS: Final = ("Migration", "Description", "Date", "Author", "Related", "Summary", "Rollback")
OPTIONAL_KEYS: Final = ("Transactional",)
SECTIONS: Final = ("forward", "verify", "rollback")
SUM_FILE: Final = "migrations.sum"
_FILENAME = re.compile(r"(?P<number>\d{3,})_(?P<name>[a-z0-9]+(?:_[a-z0-9]+)*)\.sql")
_HEADER_LINE = re.compile(rf"--\s*(?P<key>{'|'.join(HEADER_KEYS + OPTIONAL_KEYS)})\s*:(?P<value>.*)")
_TRANSACTION_CONTROL: Final = frozenset(
    {"begin", "commit", "rollback", "start", "end", "abort", "savepoint", "release"}
)


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its text, its statements with line numbers of the file, and the checksum of its text.

    ``expectations`` say what each statement has to return; there is one for each statement of ``-- verify``, else none.
    """

    name: str
    text: str = field(repr=False)
    statements: tuple[Statement, ...]
    expectations: tuple[Expectation, ...] = ()

    @property
    def sha256(self) -> str:
        """The checksum of this section alone."""
        return _sha256(self.text)

    def apart(self) -> tuple[Section, ...]:
        """Sections of one statement each, with what it has to return, in order."""
        expected = self.expectations or (None,) * len(self.statements)
        return tuple(
            replace(self, statements=(statement,), expectations=() if one is None else (one,))
            for statement, one in zip(self.statements, expected, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Checksums:
    """Hexadecimal SHA-256 of the whole file and of each part, to name the part that was edited."""

    whole: str
    header: str
    forward: str
    verify: str
    rollback: str

    def edited(self, other: Checksums) -> tuple[str, ...]:
        """Names of the parts in which two versions of a file differ."""
        return tuple(part for part in ("header", *SECTIONS) if getattr(self, part) != getattr(other, part))


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """One checked migration; ``filename`` is how every message names it."""

    number: int
    filename: str
    header: Mapping[str, str]
    forward: Section
    verify: Section
    rollback: Section
    checksums: Checksums
    index: ConcurrentIndex | None = None

    @property
    def name(self) -> str:
        """The file name without its extension, ``002_positions``."""
        return self.filename.removesuffix(".sql")

    @property
    def is_transactional(self) -> bool:
        """False for a file that builds one index CONCURRENTLY."""
        return self.index is None


def load_folder(folder: Traversable) -> tuple[MigrationFile, ...]:
    """Parse every migration of a folder, in order; raise MigrationError for the first file or number that is wrong."""
    if not folder.is_dir():
        raise MigrationError(f"the migrations folder {folder} does not exist; name one with POSITION_LEDGER_MIGRATIONS")
    sources = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    if not sources:
        raise MigrationError(f"the migrations folder {folder} holds no NNN_name.sql; name another or write the first")
    _refuse_number_clashes([entry.name for entry in sources])
    return ordered([parse_file(entry.name, entry.read_bytes()) for entry in sources])


def _refuse_number_clashes(filenames: Iterable[str]) -> None:
    """Before any file is read: two files with one number say more than a bad header in one of them."""
    seen: dict[int, str] = {}
    for filename in filenames:
        number = _number_of(filename)
        if number in seen:
            raise MigrationError(
                f"{seen[number]} and {filename} have the same number {number:03}; "
                "give the later one the next free number"
            )
        seen[number] = filename


def ordered(files: Sequence[MigrationFile]) -> tuple[MigrationFile, ...]:
    """Return files as a tuple after checking that their numbers are 1, 2, 3, … in this order."""
    _refuse_number_clashes(file.filename for file in files)
    for before, after in pairwise(files):
        if after.number < before.number:
            raise MigrationError(f"{after.filename} comes after {before.filename}: out of order; sort them by number")
        if after.number != before.number + 1:
            raise MigrationError(
                f"number {before.number + 1:03} is missing between {before.filename} and {after.filename}; "
                "restore the file or renumber the later ones"
            )
    if files and files[0].number != 1:
        raise MigrationError(f"number 001 is missing before {files[0].filename}; the first migration is 001")
    return tuple(files)


@lru_cache(maxsize=1024)
def parse_file(filename: str, content: bytes) -> MigrationFile:
    """Parse one file; raise MigrationError whose message begins with the file's name. What it has parsed it remembers."""
    number = _number_of(filename)
    try:
        return _parse(filename, number, _text_of(content))
    except MigrationError as error:
        raise MigrationError(f"{filename}: {error}, then run `position-ledger migrate sum`") from error


def _number_of(filename: str) -> int:
    match = _FILENAME.fullmatch(filename)
    if match is None:
        raise MigrationError(
            f"{filename}: the name of a migration is NNN_descriptive_name.sql in lower case, at least three digits; "
            "rename the file"
        )
    return int(match["number"])


def _text_of(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MigrationError(f"byte {error.start} is not UTF-8; save the file as UTF-8") from error
    if text.startswith("\ufeff") or "\0" in text:
        raise MigrationError("it begins with a byte order mark or holds a null byte; save it as plain UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(filename: str, number: int, text: str) -> MigrationFile:
    tokens = list(tokenize(text))
    marks = _section_marks(text, tokens)
    header_text = text[: marks["forward"].start]
    header = _header(header_text, number, tokens, marks["forward"])
    sections = {name: _section(name, text, tokens, marks) for name in SECTIONS}
    _check_forward(sections["forward"])
    _check_verify(sections["verify"])
    _check_rollback(sections["rollback"], header)
    checksums = Checksums(
        _sha256(text), _sha256(header_text), *(sections[name].sha256 for name in ("forward", "verify", "rollback"))
    )
    return MigrationFile(number, filename, header, **sections, checksums=checksums, index=_index_of(header, sections))


def _section_marks(text: str, tokens: list[Token]) -> dict[str, Token]:
    marks: dict[str, Token] = {}
    for token in tokens:
        name = token.text[2:].strip().lower() if token.text.startswith("--") else ""
        if name not in SECTIONS or not _begins_its_line(text, token):
            continue
        if name in marks:
            raise MigrationError(f"line {token.line}: a second '-- {name}' section; keep one")
        if name != SECTIONS[len(marks)]:
            raise MigrationError(
                f"line {token.line}: '-- {name}' is out of place; the order is '-- forward', '-- verify', '-- rollback'"
            )
        marks[name] = token
    missing = [f"'-- {name}'" for name in SECTIONS if name not in marks]
    if missing:
        raise MigrationError(f"the section {missing[0]} is missing; begin it with that line")
    return marks


def _begins_its_line(text: str, token: Token) -> bool:
    return not text[text.rfind("\n", 0, token.start) + 1 : token.start].strip()


def _header(text: str, number: int, tokens: list[Token], forward: Token) -> dict[str, str]:
    for token in tokens:
        if token.start < forward.start and token.kind != "comment":
            raise MigrationError(f"line {token.line}: SQL before '-- forward'; only the header stands there")
    header = _header_values(text)
    for key in HEADER_KEYS:
        if not header.get(key):
            raise MigrationError(f"the header line '-- {key}:' is missing or empty; write it")
    _check_header_values(header, number)
    return header


def _header_values(text: str) -> dict[str, str]:
    """Values by key; a comment line that begins no key goes on with the value before it."""
    header: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        match = _HEADER_LINE.fullmatch(line.strip())
        if match is not None:
            key = match["key"]
            if key in header:
                raise MigrationError(f"the header line '-- {key}:' stands twice; keep one")
            header[key] = match["value"].strip()
        elif key:
            header[key] = f"{header[key]} {line.strip().lstrip('-').strip()}".strip()
    return header


def _check_header_values(header: Mapping[str, str], number: int) -> None:
    if not header["Migration"].isdecimal() or int(header["Migration"]) != number:
        raise MigrationError(
            f"the header says '-- Migration: {header['Migration']}' but the file name says {number:03}"
        )
    try:
        date.fromisoformat(header["Date"])
    except ValueError as error:
        raise MigrationError(f"the header line '-- Date: {header['Date']}' is not a date like 2026-01-31") from error
    if header.get("Transactional", "yes") not in {"yes", "no"}:
        raise MigrationError(f"the header line '-- Transactional: {header['Transactional']}' is neither yes nor no")


def _section(name: str, text: str, tokens: list[Token], marks: Mapping[str, Token]) -> Section:
    start = marks[name].end
    later = [mark.start for mark in marks.values() if mark.start > start]
    end = min(later, default=len(text))
    inside = [token for token in tokens if start <= token.start < end]
    statements = split_statements(text, inside)
    for statement in statements:
        _refuse_unsendable(statement)
    expectations = expectations_of(text, inside, statements, is_verification=name == "verify")
    return Section(name, text[start:end], statements, expectations)


def _refuse_unsendable(statement: Statement) -> None:
    """Statements that would end the runner's own transaction, leave its schema or wait for input that a file cannot give."""
    words = statement.words
    control = words[:1] and words[0] in _TRANSACTION_CONTROL
    if control or words[:2] in {("prepare", "transaction"), ("set", "transaction")}:
        raise MigrationError(
            f"line {statement.line}: {statement.excerpt!r} controls the transaction; leave it out, "
            "the runner wraps each file in one transaction"
        )
    if _sets_path(statement):
        raise MigrationError(
            f"line {statement.line}: {statement.excerpt!r} sets search_path, which is the runner's: it searches the "
            "schema of the ledger already, and a file that may set it could change another schema, which nobody would "
            "verify; leave it out, and write the schema before the name where another one is meant"
        )
    if words[:1] == ("copy",) and {"stdin", "stdout"} & set(words):
        raise MigrationError(f"line {statement.line}: COPY cannot read from or write to a migration file; use INSERT")
    if statement.text.startswith("\\"):
        command = statement.text.partition("\n")[0].rstrip()
        raise MigrationError(f"line {statement.line}: '{command}' is a psql command, not SQL; leave it out")


def _sets_path(statement: Statement) -> bool:
    """Whether the text shows that it leaves another search_path; what a block of code does, the runner sees after it."""
    words = statement.words
    if words[:1] == ("set",):
        names = {identifier(token) for token in statement.tokens[1:3] if token.kind in {"word", "name"}}
        return bool({"search_path", "schema"} & names)
    if words[:1] == ("reset",):
        return {identifier(token) for token in statement.tokens[1:2]} <= {"search_path", "all"}
    if words[:2] == ("discard", "all"):
        return True
    said = [_flat(token) for token in statement.tokens]
    fixed = {place for place, token in enumerate(statement.tokens) if token.kind == "string"}
    return any(
        said[place : place + 4] == ["set_config", "(", "'search_path'", ","]
        and place + 4 in fixed
        and said[place + 5] == ","
        for place in range(len(said) - 5)
    )


def _flat(token: Token) -> str:
    """A token as it may be compared: words and strings in lower case, a quoted name without its quotes."""
    return identifier(token) if token.kind == "name" else token.text.lower()


def _check_forward(section: Section) -> None:
    if not section.statements:
        raise MigrationError("the section '-- forward' has no statement; write what the migration does")


def _check_verify(section: Section) -> None:
    if not section.statements:
        raise MigrationError(
            "the section '-- verify' has no statement; write at least one SELECT that returns one true when it holds"
        )
    for statement in section.statements:
        if statement.words[:1] not in {("select",), ("with",)}:
            raise MigrationError(
                f"line {statement.line}: {statement.excerpt!r} is no SELECT; "
                "a verification returns one row with one true"
            )


def _check_rollback(section: Section, header: Mapping[str, str]) -> None:
    """An empty rollback is a decision, so the header has to say `Rollback: none, because …`."""
    says_none = header["Rollback"].lower().startswith("none")
    if not section.statements and not says_none:
        raise MigrationError(
            "the section '-- rollback' has no statement; write it, or say in the header '-- Rollback: none, because …'"
        )
    if section.statements and says_none:
        raise MigrationError(
            "the header says '-- Rollback: none' but the section '-- rollback' has statements; drop one"
        )


def _index_of(header: Mapping[str, str], sections: Mapping[str, Section]) -> ConcurrentIndex | None:
    if header.get("Transactional", "yes") == "yes":
        return None
    for name in ("forward", "rollback"):
        if len(sections[name].statements) != 1:
            raise MigrationError(
                f"a file with 'Transactional: no' holds exactly one statement in '-- {name}', "
                f"not {len(sections[name].statements)}; split it"
            )
    return concurrent_index(sections["forward"].statements[0], sections["rollback"].statements[0])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
