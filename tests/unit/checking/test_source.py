"""Which strings of Python source are SQL statements, what they are composed of, and on which line they stand."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from position_ledger.checking.files import FILE_BYTES_MAX, Sources
from position_ledger.checking.source import statements_of
from position_ledger.checking.text import (
    KEY,
    SCHEMA,
    TABLE,
    Hole,
    Place,
    SqlText,
    describable,
    numbered,
    stars,
    statements_in,
    with_braces,
)
from position_ledger.errors import ConfigurationError


def found(folder: Path, **files: str) -> list[SqlText]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text), encoding="utf-8")
    sources = Sources()
    sources.add(folder, "")
    return statements_of(sources)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('Q = "SELECT a FROM t"', "SELECT a FROM t"),
        ("Q = 'SELECT a ' 'FROM t'", "SELECT a FROM t"),
        ("Q = 'SELECT a ' + 'FROM t'", "SELECT a FROM t"),
        ("C = 'a, b'\nQ = f'SELECT {C} FROM t'", "SELECT a, b FROM t"),
        ("LIMIT = 3\nQ = f'SELECT a FROM t LIMIT {LIMIT}'", "SELECT a FROM t LIMIT {}"),
        ("Q = f'SELECT a FROM t LIMIT {3}'", "SELECT a FROM t LIMIT 3"),
        ("class A:\n    Q = 'SELECT a FROM t'\n    def m(self, c):\n        c.execute(self.Q)", "SELECT a FROM t"),
        ("def f(c):\n    c.execute('select a from t')", "select a from t"),
        ("def f(c):\n    q = 'select a from t'\n    c.execute(q)", "select a from t"),
        ("q = 'select a from t'\ndef f(c):\n    c.executemany(q, [])", "select a from t"),
        ("def f(c):\n    c.execute(b'DELETE FROM t')", "DELETE FROM t"),
        ("def f(c):\n    c.execute(SQL('SELECT a FROM {}').format(Identifier('s', 't')))", 'SELECT a FROM "t"'),
        ("N = 't'\nQ = SQL('SELECT a FROM {t}').format(t=Identifier(N))", 'SELECT a FROM "t"'),
        ("Q = SQL('SELECT a FROM t WHERE a = {}').format(Placeholder('a'))", "SELECT a FROM t WHERE a = %s"),
        ("A = 'WITH w AS (SELECT 1 AS a) '\nQ = A + 'SELECT a FROM w'", "WITH w AS (SELECT 1 AS a) SELECT a FROM w"),
        ("if True:\n    Q = 'INSERT INTO t (a) VALUES (1)'", "INSERT INTO t (a) VALUES (1)"),
    ],
)
def test_a_statement_is_followed_to_its_parts(tmp_path: Path, source: str, text: str) -> None:
    assert [one.text for one in found(tmp_path, module=source)] == [text]


@pytest.mark.parametrize(
    "source",
    [
        '"""SELECT a FROM t in a docstring."""',
        "def f():\n    '''UPDATE t SET a'''",
        "WORD = 'SELECT'",
        "S = 'Update the table with SET'",
        "S = 'select one of the following'",
        "S = 'LOCK it'",
        "def f(c):\n    c.execute('SET timezone = \\'UTC\\'')",
        "import sqlite3\ndef f(c):\n    c.execute('SELECT a FROM t WHERE a = ?')",
        "WHERE = 'p.a = %s'",
    ],
)
def test_what_is_no_statement_of_this_database_is_left_alone(tmp_path: Path, source: str) -> None:
    assert found(tmp_path, module=source) == []


def test_a_constant_is_followed_through_imports_to_its_line(tmp_path: Path) -> None:
    texts = found(
        tmp_path,
        queries="\n\nCOLUMNS = 'a'\nQ = f'''\nSELECT {COLUMNS}\n  FROM t\n'''\n",
        use="import queries as q\nfrom queries import Q as again\ndef f(c):\n    c.execute(q.Q)\n    c.execute(again)\n",
    )

    assert [(one.place.file.name, one.place.line, one.is_executed) for one in texts] == [("queries.py", 4, True)]
    assert texts[0].place_of(texts[0].text, texts[0].text.index("FROM")).line == 6


def test_what_is_known_only_by_its_kind_is_a_hole_of_that_kind(tmp_path: Path) -> None:
    source = """
        def f(c, schema, projection):
            c.execute(SQL("SELECT t.{k} FROM {s}.a, {t} AS t WHERE {w}").format(
                k=Identifier(projection.key_column), s=Identifier(schema), t=Identifier(schema, projection.table), w=w()))
    """
    (text,) = found(tmp_path, module=source)

    holes = [part.name for part in text.parts if isinstance(part, Hole)]
    assert holes == [KEY, SCHEMA, TABLE, "w"]
    assert not text.is_whole
    assert text.pattern().fullmatch('SELECT t."key" FROM ledger.a, "x" AS t WHERE true')


def test_types_of_parameters_are_told_by_literals_and_annotations(tmp_path: Path) -> None:
    source = """
        def f(c, number: int, when: datetime | None, other):
            c.execute("SELECT %s, %s, %s, %s, %s", (number, when, other, "x", None))
            c.execute("SELECT %(a)s", {"a": Decimal("1")})
            c.executemany("SELECT %s, 1", [(1,)])
    """
    families = [one.families for one in found(tmp_path, module=source)]

    assert families == [{0: "int", 1: "datetime", 3: "str"}, {"a": "Decimal"}, {}]


def test_a_name_that_is_assigned_twice_is_not_known(tmp_path: Path) -> None:
    source = "def f(c, x):\n    q = 'SELECT a FROM t'\n    if x:\n        q = 'SELECT b FROM t'\n    c.execute(q)\n"
    assert [one.text for one in found(tmp_path, module=source)] == ["SELECT a FROM t", "SELECT b FROM t"]


@pytest.mark.parametrize(
    ("content", "words"),
    [("Q = 'SELECT\n", r"bad\.py:1 cannot be read as Python"), ("SELECT = '\0'", "cannot be read as Python")],
)
def test_a_file_that_is_no_python_is_named(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        found(tmp_path, bad=content)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere of the code to check does not exist: name another"):
        Sources().add(tmp_path / "nowhere", "")


def test_modules_import_each_other_relatively_and_two_folders_may_have_one_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "queries.py").write_text(f"Q = 'select {name} from t'\n")
        (tmp_path / name / "inner" / "use.py").write_text("from ..queries import Q\ndef f(c):\n    c.execute(Q)\n")
    sources = Sources()
    sources.add(tmp_path / "one", "desk")
    sources.add(tmp_path / "one" / "queries.py", "desk")
    sources.add(tmp_path / "two", "desk")

    assert [one.text for one in statements_of(sources)] == ["select one from t"]


def test_what_is_no_code_is_named(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigurationError, match=r"big\.py has 2000001 bytes, more than 2000000: is it code"):
        found(tmp_path)
    (tmp_path / "big.py").unlink()
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ConfigurationError, match=r"folder\.py cannot be read: Is a directory"):
        found(tmp_path)


def test_folders_of_others_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "x.py").write_text("Q = 'SELECT a FROM t'")
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "sent", "order"),
    [
        ("SELECT %s, %s", "SELECT $1, $2", [0, 1]),
        ("SELECT %(a)s, %(b)s, %(a)s", "SELECT $1, $2, $1", ["a", "b"]),
        ("SELECT %s LIKE 'a%%'", "SELECT $1 LIKE 'a%'", [0]),
        ("SELECT a LIKE 'a%%'", "SELECT a LIKE 'a%%'", []),
        ("SELECT 3 % 2", "SELECT 3 % 2", []),
    ],
)
def test_placeholders_are_numbered_as_the_driver_does(text: str, sent: str, order: list[int | str]) -> None:
    assert numbered(text, has_parameters=False) == (sent, order)


def test_percent_signs_count_when_there_are_parameters() -> None:
    assert numbered("SELECT a LIKE 'a%%'", has_parameters=True) == ("SELECT a LIKE 'a%'", [])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("SELECT * FROM t", 1),
        ("SELECT t.*, 1 FROM t", 1),
        ("SELECT 1, * FROM t", 1),
        ("DELETE FROM t RETURNING *", 1),
        ("SELECT DISTINCT * FROM t", 1),
        ("SELECT count(*), 2 * 3, a * b FROM t", 0),
        ("SELECT '*', \"*\" FROM t -- SELECT *", 0),
        ("SELECT 'open", 0),
    ],
)
def test_a_star_that_stands_for_columns_is_told_from_others(text: str, count: int) -> None:
    assert len(list(stars(text))) == count


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("COPY t (a, b) FROM STDIN (FORMAT BINARY)", "SELECT a, b FROM t"),
        ("COPY s.t(a) TO STDOUT", "SELECT a FROM s.t"),
        ("COPY t FROM STDIN", "SELECT  FROM t"),
        ("LOCK TABLE a, b IN SHARE MODE", "SELECT FROM a, b"),
        ("(SELECT 1) UNION (SELECT 2)", "(SELECT 1) UNION (SELECT 2)"),
        ("-- why\nSELECT 1", "-- why\nSELECT 1"),
        ("ALTER TABLE t ADD c integer", None),
    ],
)
def test_copy_and_lock_are_asked_for_as_a_select(text: str, asked: str | None) -> None:
    assert describable(text) == asked


def test_texts_are_cut_and_shown() -> None:
    assert statements_in("SELECT 1;\nSELECT ';'") == [(0, "SELECT 1"), (10, "SELECT ';'")]
    assert statements_in("SELECT 'open") == [(0, "SELECT 'open")]
    assert with_braces("{a:>3}") == ("{a:>3}",)
    assert with_braces("{") == ("{",)
    text = SqlText(("SELECT " + "a, " * 40,), Place(Path("/nowhere/x.py"), 7))
    assert len(text.excerpt) == 60
    assert str(text.place) == "/nowhere/x.py:7"
