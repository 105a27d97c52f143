"""Statements end where the server would end them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.errors import MigrationError
from position_ledger.migration.sql_text import split_statements, tokenize


def texts(sql: str) -> list[str]:
    return [statement.text for statement in split_statements(sql, list(tokenize(sql)))]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        (" ; ;; ", []),
        ("-- only a comment;\n/* and; another */", []),
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';'; SELECT 'it''s;'", ["SELECT ';'", "SELECT 'it''s;'"]),
        (r"SELECT E'\';'; SELECT 2", [r"SELECT E'\';'", "SELECT 2"]),
        (r"SELECT '\'; SELECT 2", [r"SELECT '\'", "SELECT 2"]),
        ("SELECT E'a'\n  'b\\';'; SELECT 2", ["SELECT E'a'\n  'b\\';'", "SELECT 2"]),
        ('SELECT U&\'d;\' "x;""y"; SELECT 2', ['SELECT U&\'d;\' "x;""y"', "SELECT 2"]),
        ("SELECT $$;$$; SELECT $a$ $$;$b$ $a$;", ["SELECT $$;$$", "SELECT $a$ $$;$b$ $a$"]),
        ("SELECT a$b$; SELECT c$b$", ["SELECT a$b$", "SELECT c$b$"]),
        ("SELECT $1; SELECT $2", ["SELECT $1", "SELECT $2"]),
        ("SELECT $ä$;$ä$; SELECT 2", ["SELECT $ä$;$ä$", "SELECT 2"]),
        ("SELECT 1 -- a; 'b\n; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT /* ; /* ; */ ' */ 1; SELECT 2", ["SELECT /* ; /* ; */ ' */ 1", "SELECT 2"]),
        ("SELECT 1--x;\n+1; SELECT 2", ["SELECT 1--x;\n+1", "SELECT 2"]),
        (
            "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2); SELECT 3",
            ["CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)", "SELECT 3"],
        ),
        (
            "CREATE FUNCTION f(a bool) BEGIN ATOMIC SELECT 1; SELECT CASE WHEN a THEN 1 ELSE 2 END; END; SELECT 3",
            [
                "CREATE FUNCTION f(a bool) BEGIN ATOMIC SELECT 1; SELECT CASE WHEN a THEN 1 ELSE 2 END; END",
                "SELECT 3",
            ],
        ),
        (
            "CREATE OR REPLACE PROCEDURE p() BEGIN /* x */ ATOMIC SELECT 1 AS end; SELECT t.end FROM t; END; SELECT 3",
            [
                "CREATE OR REPLACE PROCEDURE p() BEGIN /* x */ ATOMIC SELECT 1 AS end; SELECT t.end FROM t; END",
                "SELECT 3",
            ],
        ),
        (
            "CREATE FUNCTION begin() RETURNS int AS $$BEGIN RETURN 1; END$$ LANGUAGE plpgsql; SELECT 3",
            ["CREATE FUNCTION begin() RETURNS int AS $$BEGIN RETURN 1; END$$ LANGUAGE plpgsql", "SELECT 3"],
        ),
        ("SELECT begin, atomic FROM t; SELECT 2", ["SELECT begin, atomic FROM t", "SELECT 2"]),
    ],
)
def test_statements_end_where_the_server_would_end_them(sql: str, expected: list[str]) -> None:
    assert texts(sql) == expected


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1;\nSELECT 'abc", "line 2: the string that begins here never ends"),
        ('SELECT "abc', "line 1: the quoted name"),
        ("\n\nSELECT $x$ $y$ $$", r"line 3: the dollar quote \$x\$"),
        ("SELECT /* /* */ 1", "line 1: the comment"),
        (r"SELECT E'\'", "line 1: the string"),
    ],
)
def test_what_never_ends_is_named_with_its_line(sql: str, message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        texts(sql)


def test_each_statement_knows_its_line() -> None:
    sql = "-- one\n\nSELECT 1;\n/* a\nb */ SELECT\n2; SELECT 3;"
    assert [statement.line for statement in split_statements(sql, list(tokenize(sql)))] == [3, 5, 6]


_QUOTED = st.text(alphabet="ab;'\"$-/*\\ \n", max_size=12)
_PIECES = st.one_of(
    _QUOTED.map(lambda body: "'" + body.replace("'", "''") + "'"),
    _QUOTED.map(lambda body: '"' + body.replace('"', '""') + '"'),
    _QUOTED.map(lambda body: "E'" + body.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    _QUOTED.filter(lambda body: "$q$" not in body + "$").map(lambda body: f"$q${body}$q$"),
    _QUOTED.map(lambda body: "/*" + body.replace("*", "").replace("/", "") + "*/"),
    _QUOTED.map(lambda body: "--" + body.replace("\n", "") + "\n"),
    st.sampled_from(["SELECT", "x", "1", "(a)", ",", "+"]),
)


@given(st.lists(st.lists(_PIECES, min_size=1, max_size=6), min_size=1, max_size=5))
def test_joining_and_splitting_gives_the_statements_back(statements: list[list[str]]) -> None:
    """Whatever stands inside quotes and comments, only the semicolons between statements end one.

    A comma stands between the pieces, because a string goes on in a string on the next line, in the same notation.
    """
    sources = ["SELECT " + " , ".join(pieces) for pieces in statements]
    found = texts("\n;\n".join(sources))
    assert len(found) == len(sources)
    assert all(source.startswith(text) for source, text in zip(sources, found, strict=True))


@given(st.text(alphabet="ab$'\"-/*\\;eE \n(", max_size=60))
def test_tokens_cover_the_text(sql: str) -> None:
    try:
        tokens = list(tokenize(sql))
    except MigrationError:
        return
    covered = "".join(token.text for token in tokens)
    assert covered.replace(" ", "").replace("\n", "") == sql.replace(" ", "").replace("\n", "")
    assert all(sql[token.start : token.end] == token.text for token in tokens)
    assert all(token.line == sql.count("\n", 0, token.start) + 1 for token in tokens)
