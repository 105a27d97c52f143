from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tools import house_check
from tools.house_check import addresses, long_file, long_functions, main, starred_sql, starred_strings

if TYPE_CHECKING:
    from pathlib import Path

STAR = "*"  # apart, so that this file holds no starred SQL itself


def function_of(lines: int, docstring_lines: int = 0) -> ast.Module:
    docstring = ['    """' + "\n".join(["a line"] * docstring_lines) + '"""'] if docstring_lines else []
    return ast.parse("\n".join(["def f():", *docstring, *["    pass"] * (lines - 1)]))


def test_a_function_may_have_seventy_lines_and_not_one_more() -> None:
    assert list(long_functions("m.py", function_of(70))) == []
    assert list(long_functions("m.py", function_of(71))) == ["m.py:1: f has 71 lines, at most 70: split it"]


def test_a_docstring_is_not_counted() -> None:
    assert list(long_functions("m.py", function_of(70, docstring_lines=40))) == []
    assert list(long_functions("m.py", function_of(71, docstring_lines=40))) != []


def test_methods_and_coroutines_are_measured_too() -> None:
    body = "\n".join(["        pass"] * 70)
    tree = ast.parse(f"class C:\n    async def f(self):\n{body}\n")
    assert len(list(long_functions("m.py", tree))) == 1


def test_a_file_may_have_five_hundred_lines_and_not_one_more() -> None:
    assert list(long_file("m.py", "x\n" * 500)) == []
    assert len(list(long_file("m.py", "x\n" * 501))) == 1


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT {STAR} FROM positions",
        f"select\n  {STAR}\nfrom positions",
        f"select distinct p.{STAR} from positions p",
        f"insert into t values (1) returning {STAR}",
        f"create view v as select id from (select {STAR} from t) s",
    ],
)
def test_starred_columns_are_found(sql: str) -> None:
    assert len(list(starred_sql("q.sql", sql))) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from positions",
        "select quantity * price from trades",
        f"-- a view that says select {STAR} misses new columns\nselect id from positions",
    ],
)
def test_other_stars_are_not(sql: str) -> None:
    assert list(starred_sql("q.sql", sql)) == []


def test_a_finding_names_its_line() -> None:
    (finding,) = starred_sql("q.sql", f"-- first\n\nselect {STAR} from t\n")
    assert finding.startswith("q.sql:3: ")


def test_strings_in_python_are_read_and_docstrings_are_not() -> None:
    module = [
        f'"""select {STAR} is forbidden."""',
        "",
        f'QUERY = "select {STAR} " "from t"',
        f'F = f"select {STAR} {{x}}"',
    ]
    tree = ast.parse("\n".join(module))
    assert [finding.split(" ")[0] for finding in starred_strings("m.py", tree)] == ["m.py:3:", "m.py:4:"]


def test_a_pin_file_with_an_address_is_refused() -> None:
    pins = "a==1 \\\n    --hash=sha256:00\nb @ https://example.org/b.whl\n"
    assert [finding.split(" ")[0] for finding in addresses("constraints.txt", pins)] == ["constraints.txt:3:"]


def test_the_command_finds_each_kind_and_exits_with_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a checkout with a clean module and clean pins
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "clean.py").write_text("X = 1\n")
    (tmp_path / "constraints.txt").write_text("a==1\n")
    assert main() == 0

    # when one fault of each kind is added
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "001_x.sql").write_text(f"create view v as select {STAR} from t;\n")
    (tmp_path / "src" / "starred.py").write_text(f'Q = "select {STAR} from t"\n')
    (tmp_path / "src" / "long.py").write_text("x = 1\n" * (house_check.FILE_LINES_MAX + 1))
    (tmp_path / "constraints.txt").write_text("a @ https://example.org/a.whl\n")

    # then each is named with its place
    assert main() == 1
    places = sorted(line.split(" ")[0] for line in capsys.readouterr().out.splitlines()[1:])
    assert places == ["constraints.txt:1:", "migrations/001_x.sql:1:", "src/long.py:500:", "src/starred.py:1:"]
