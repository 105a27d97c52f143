"""Python files of the code to check: their syntax trees, the constants that they name and what they import."""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from position_ledger.checking.text import Place
from position_ledger.errors import ConfigurationError

__all__ = ["Source", "Sources", "assigned"]

IGNORED_FOLDERS: Final = frozenset({"__pycache__", ".venv", "venv", "node_modules", ".git", "build", "dist"})
FILE_BYTES_MAX: Final = 2_000_000
FOR_OTHERS: Final = b"# other database"
"""What the first line of a statement says that is not for the ledger's database."""
_MAY_HOLD_SQL: Final = re.compile(
    rb"\b(?:SELECT|INSERT|UPDATE|DELETE|MERGE|VALUES|COPY|LOCK)\b|\.(?:execute|executemany|stream)\("
)
_OTHER_DATABASE: Final = re.compile(
    rb"^\s*(?:import|from)\s+(?:sqlite3|duckdb|pymysql|oracledb|pyodbc)\b", re.MULTILINE
)


@dataclass(slots=True)
class Source:
    """One file and the constants that it names; ``module`` is its dotted name among the files read with it."""

    file: Path
    module: str
    tree: ast.Module
    marked: Sequence[int]
    """Lines, rising, that may have to do with SQL."""
    for_others: frozenset[int]
    """Lines that say that their statement is for another database."""
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Local name to (module, name in it; "" for the module itself)."""

    def may_hold_sql(self, node: ast.stmt) -> bool:
        """Whether one of the lines of a statement of Python may have to do with SQL."""
        first = bisect_left(self.marked, node.lineno)
        return first < len(self.marked) and self.marked[first] <= (node.end_lineno or node.lineno)


class Sources:
    """Files by dotted name; each is parsed when it is first needed: most hold no SQL, and parsing is what takes time."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self._parsed: dict[str, Source] = {}
        self._for_others: dict[Path, frozenset[int]] = {}

    def add(self, folder: Path, package: str) -> None:
        """Take in every Python file under a folder (or the one file); their dotted names begin with ``package``.

        Raises:
            ConfigurationError: no such folder.
        """
        if not folder.exists():
            msg = f"folder {folder} of the code to check does not exist: name another with --code"
            raise ConfigurationError(msg)
        root = folder.parent if folder.is_file() else folder
        known = set(self.files.values())
        for file in [folder] if folder.is_file() else sorted(folder.rglob("*.py")):
            inside = file.relative_to(root)
            if not IGNORED_FOLDERS.intersection(inside.parts[:-1]) and file not in known:
                self.files[_unused(_dotted(inside, package), self.files)] = file

    def with_sql(self) -> Iterator[Source]:
        """The files that speak to PostgreSQL, as far as their text tells; one that uses another database does not."""
        for module, file in self.files.items():
            content = _content(file)
            if _MAY_HOLD_SQL.search(content) and not (_OTHER_DATABASE.search(content) and b"psycopg" not in content):
                yield self._source(module, content)

    def get(self, module: str) -> Source | None:
        """A file by its dotted name; None for one that is not among these."""
        if module not in self.files:
            return None
        return self._source(module, None)

    def is_for_others(self, place: Place) -> bool:
        """Whether the line where a statement begins says that it is for another database."""
        return place.line in self._for_others.get(place.file, ())

    def _source(self, module: str, content: bytes | None) -> Source:
        found = self._parsed.get(module)
        if found is None:
            file = self.files[module]
            found = self._parsed[module] = _parsed(file, module, _content(file) if content is None else content)
            self._for_others[file] = found.for_others
        return found


def _unused(module: str, taken: Mapping[str, Path]) -> str:
    """Two folders may hold modules of one name; imports then mean the first."""
    while module in taken:
        module += "_"
    return module


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        msg = f"{file} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error
    if len(content) > FILE_BYTES_MAX:
        msg = f"{file} has {len(content)} bytes, more than {FILE_BYTES_MAX}: is it code? Name a narrower folder"
        raise ConfigurationError(msg)
    return content


def _dotted(path: Path, package: str) -> str:
    parts = [part for part in path.with_suffix("").parts if part != "__init__"]
    return ".".join([package, *parts] if package else parts)


def _parsed(file: Path, module: str, content: bytes) -> Source:
    try:
        lines = list(enumerate(content.split(b"\n"), 1))
        others = frozenset(number for number, line in lines if FOR_OTHERS in line)
        marked = [number for number, line in lines if _MAY_HOLD_SQL.search(line)]
        source = Source(file, module, ast.parse(content, str(file)), marked, others)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        msg = f"{file}{line} cannot be read as Python: {getattr(error, 'msg', None) or error}"
        raise ConfigurationError(msg) from error
    _name_constants(source, source.tree.body, "")
    for node in _statements(source.tree):
        if isinstance(node, ast.ImportFrom):
            origin = _origin(source, node)
            source.imports.update({name.asname or name.name: (origin, name.name) for name in node.names})
        elif isinstance(node, ast.Import):
            source.imports.update({name.asname: (name.name, "") for name in node.names if name.asname})
    return source


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Every statement of Python, those inside others too, without the expressions."""
    for field_name in ("body", "orelse", "finalbody", "handlers"):
        for child in getattr(node, field_name, ()):
            if isinstance(child, ast.stmt):
                yield child
            yield from _statements(child)


def _origin(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = source.module.split(".")
    drop = node.level - (1 if source.file.name == "__init__.py" else 0)
    return ".".join([*parts[: len(parts) - drop], *([node.module] if node.module else [])])


def _name_constants(source: Source, body: Sequence[ast.stmt], prefix: str) -> None:
    for node in body:
        if isinstance(node, ast.ClassDef):
            _name_constants(source, node.body, f"{node.name}.")
        elif isinstance(node, ast.If):
            _name_constants(source, [*node.body, *node.orelse], prefix)
        else:
            source.constants.update({f"{prefix}{name}": value for name, value in assigned(node)})


def assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Each plain name that a statement gives a value to, with the value."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        yield node.targets[0].id, node.value
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Tuple):
        values = node.value.elts if isinstance(node.value, ast.Tuple) else []
        for target, value in zip(node.targets[0].elts, values, strict=False):
            if isinstance(target, ast.Name):
                yield target.id, value
    elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
        yield node.target.id, node.value
