"""Fail on what no linter measures: long files and functions, starred columns in owned SQL, addresses among the pins.

Run as ``python -m tools.house_check`` at the top of the checkout.
"""

from __future__ import annotations

import ast
import re
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

CODE = ("src", "projections", "workers", "tools", "bench", "tests")
OWNS_SQL = ("src", "projections", "workers", "migrations", "bench")

# A view or cursor that says * keeps the columns of its birthday: after a migration it misses the new one.
STARRED = re.compile(r"\b(?:select(?:\s+distinct)?|returning)\s+(?:\w+\.)?\*", re.IGNORECASE)
SQL_COMMENT = re.compile(r"--[^\n]*")


def docstring_of(node: ast.AST) -> ast.Constant | None:
    """Return the node of a docstring, if ``node`` has one."""
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
        value = body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value
    return None


def lines_of(node: ast.stmt | ast.expr) -> int:
    """Return over how many lines a node stretches."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def long_functions(path: str, tree: ast.Module) -> Iterator[str]:
    """Yield a sentence per function with more than the allowed lines, its docstring not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = docstring_of(node)
            lines = lines_of(node) - (lines_of(docstring) if docstring else 0)
            if lines > FUNCTION_LINES_MAX:
                yield f"{path}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}: split it"


def long_file(path: str, text: str) -> Iterator[str]:
    """Yield a sentence when a file has more than the allowed lines."""
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{path}:{FILE_LINES_MAX}: the file has {lines} lines, at most {FILE_LINES_MAX}: split it"


def starred_strings(path: str, tree: ast.Module) -> Iterator[str]:
    """Yield a sentence per string in Python code, docstrings apart, that selects or returns ``*``."""
    docstrings = {id(docstring_of(node)) for node in ast.walk(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield from starred_sql(path, node.value, node.lineno)


def starred_sql(path: str, sql: str, first_line: int = 1) -> Iterator[str]:
    """Yield a sentence per starred column list in SQL, comments apart."""
    code = SQL_COMMENT.sub("", sql)
    for match in STARRED.finditer(code):
        line = first_line + code.count("\n", 0, match.start())
        yield f"{path}:{line}: owned SQL says {match.group()!r}: name the columns"


def addresses(path: str, text: str) -> Iterator[str]:
    """Yield a sentence per line of a pin file that holds a download address."""
    for line, content in enumerate(text.splitlines(), 1):
        if "://" in content:
            yield f"{path}:{line}: pins are names, versions and hashes, never addresses: run make constraints"


def python_findings(path: str, text: str, *, owns_sql: bool) -> Iterator[str]:
    """Yield every finding in one Python file."""
    tree = ast.parse(text, path)
    yield from long_file(path, text)
    yield from long_functions(path, tree)
    if owns_sql:
        yield from starred_strings(path, tree)


def files(folders: Iterable[str], pattern: str) -> list[Path]:
    """Return the files below those of ``folders`` that exist, in a stable order."""
    return sorted(chain.from_iterable(Path(folder).rglob(pattern) for folder in folders))


def findings() -> Iterator[str]:
    """Yield every finding in the checkout that is the working directory."""
    for path in files(CODE, "*.py"):
        yield from python_findings(str(path), path.read_text(encoding="utf-8"), owns_sql=path.parts[0] in OWNS_SQL)
    for path in files(OWNS_SQL, "*.sql"):
        text = path.read_text(encoding="utf-8")
        yield from chain(long_file(str(path), text), starred_sql(str(path), text))
    yield from addresses("constraints.txt", Path("constraints.txt").read_text(encoding="utf-8"))


def main() -> int:
    """Print every finding; return 1 if there is one, else 0."""
    found = list(findings())
    print("\n".join(found) if found else "house check: no findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
