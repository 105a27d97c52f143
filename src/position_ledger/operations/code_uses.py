"""Where code names what a migration takes away: SQL text in Python files, prepared by the server to be sure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg

SQL_WORDS: Final = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE)\b")
_PLACEHOLDER: Final = re.compile(r"%%|%\((\w+)\)[sbt]|%[sbt]")
_CLAUSE: Final = re.compile(r"\b(FROM|INTO|SET)\b")


@dataclass(frozen=True, slots=True)
class Use:
    """SQL in the code that names something; ``breaks`` is the server's sentence, "" where it could not tell."""

    file: str
    line: int
    breaks: str

    def __str__(self) -> str:
        """The place, and what the server says there."""
        return f"{self.file}:{self.line}{f' ({self.breaks})' if self.breaks else ''}"


def folders_of(packages: Sequence[str]) -> list[Path]:
    """Where packages (by dotted name) or folders lie; those that cannot be found are left out."""
    found = []
    for name in packages:
        if Path(name).is_dir():
            found.append(Path(name))
            continue
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            continue
        found += [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return found


def uses(connection: psycopg.Connection[Any], folders: Sequence[Path], names: Sequence[str]) -> list[Use]:
    """SQL of the Python files that has all the names as words and does not run without them, or may not.

    ``connection`` is in a transaction of the database in which they are gone.
    """
    found = []
    for path, line, text in _texts(folders, names):
        if all(re.search(rf"\b{re.escape(name)}\b", text) for name in names):
            use = _tried(connection, f"{path.parent.name}/{path.name}", line, text, names)
            found += [use] if use is not None else []
    return found


def _texts(folders: Sequence[Path], names: Sequence[str]) -> Iterator[tuple[Path, int, str]]:
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            source = path.read_text(encoding="utf-8", errors="replace")
            if not all(name in source for name in names):
                continue
            try:
                tree = ast.parse(source)
            except SyntaxError:
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL_WORDS.search(node.value):
                    yield path, node.lineno, node.value


def _tried(connection: psycopg.Connection[Any], file: str, line: int, text: str, names: Sequence[str]) -> Use | None:
    """None if the server takes the statement, so that it names something else by these words."""
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        if match.group() == "%%":
            return "%"
        return f"${numbers.setdefault(match.group(1) or str(len(numbers)), len(numbers) + 1)}"

    statement = _PLACEHOLDER.sub(numbered, text)
    try:
        with connection.transaction():
            answer = connection.pgconn.prepare(b"", statement.encode())
            if answer.error_message:
                raise psycopg.ProgrammingError(answer.error_message.decode(errors="replace"))
    except psycopg.Error as error:
        return _judged(error, file, line, text, names)
    return None


def _judged(error: psycopg.Error, file: str, line: int, text: str, names: Sequence[str]) -> Use | None:
    message = (str(error).strip().splitlines() or [""])[0].removeprefix("ERROR:").strip()
    if "does not exist" in message and names[-1] in message:
        return Use(file, line, message)
    if "syntax error" in message and _is_sql(text):
        return Use(file, line, "")
    return None


def _is_sql(text: str) -> bool:
    """Whether it begins as a statement does: prose that happens to say SELECT is left out."""
    first = (text.split() or [""])[0].lower()
    return first in {"select", "insert", "update", "delete", "with"} and bool(_CLAUSE.search(text))
