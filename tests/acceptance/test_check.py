"""`position-ledger check`: what was changed by hand, what the code does not know, and a team's broken queries are named."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

import position_ledger
from position_ledger import operations
from position_ledger.checking.statements import MADE_BY_CODE, NEVER_BY_TEXT, NOT_ANALYSED, TYPED_BY_VALUE
from position_ledger.settings import Settings
from position_ledger.setup import Reached
from tests.support.command_line import CommandLine, in_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.operations import CheckReport
    from position_ledger.testing.databases import Template

NOT_DESCRIBED_OF_OURS = {
    # a foreign key of somebody else
    "projection/foreign_keys.py": 1,
    # parts of statements, which are put together for each table and looked at there
    "projection/differences.py": 1,
    "projection/digests.py": 2,
    # a sample of history, projected into tables of the plan's scratch database
    "operations/sampling.py": 1,
    # constraints of a table whose generation is set aside
    "projection/swap.py": 1,
    # tables that a rebuild makes beside its shadow
    "projection/chunk_ledger.py": 7,
    "projection/pacing.py": 1,
}
"""Statements of ours that no schema can be asked about; the list may get shorter, never longer without a reason here.

Those of the folder migration/ are left out: they are about whatever tables a migration has, or are written into one.
"""


@pytest.fixture
def database(ledger_template: Template) -> Iterator[str]:
    with ledger_template.clone() as url:
        yield url


@pytest.fixture
def run(database: str) -> CommandLine:
    return in_this_process(database)


def checked(database: str, *code: Path, **settings: Any) -> CheckReport:
    given = Settings(database_url=database, **settings)
    return operations.check(given, Reached(database, "", None), [str(one) for one in code])


def by_hand(database: str, *statements: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("SET search_path = ledger")
        for statement in statements:
            owner.execute(statement.encode())


@pytest.mark.uncounted
def test_our_own_code_agrees_and_every_statement_is_described(shared_database: str) -> None:
    """Given the schema of this release, then all our statements fit it, and those not described are the known ones."""
    report = checked(shared_database)

    assert [str(one) for one in report.mismatches] == []
    assert report.notes == ()
    assert {one.state for one in report.projections} == {"current"}
    assert report.described > 300
    folder = Path(position_ledger.__file__).parent
    names = [one.place.file.relative_to(folder).as_posix() for one in report.undescribed if one.why == NEVER_BY_TEXT]
    counted = Counter(name for name in names if not name.startswith("migration/"))
    assert {name: n for name, n in counted.items() if n > NOT_DESCRIBED_OF_OURS.get(name, 0)} == {}


@pytest.mark.uncounted
def test_what_was_done_by_hand_is_named_at_once(run: CommandLine, database: str) -> None:
    """Given columns renamed, added and changed, a view, index and table by hand, then each is named with its place."""
    by_hand(
        database,
        "ALTER TABLE trades RENAME COLUMN execution_time TO executed_at",
        "ALTER TABLE edges ALTER COLUMN edge_name SET DEFAULT '', ALTER COLUMN edge_name SET NOT NULL",
        "ALTER TABLE edges ALTER COLUMN market_id DROP NOT NULL",
        "ALTER TABLE game_states ADD COLUMN weather text",
        "ALTER VIEW open_positions RENAME COLUMN quantity TO size",
        "DROP INDEX positions_open_by_market",
        "DROP TABLE platforms CASCADE",
        "ALTER TABLE account_balance RENAME TO balances",
    )

    answer = run("check", "--verbose")

    assert answer.code == 1
    lines = answer.out.splitlines()
    for words in (
        "trades.py:", "has no column execution_time",
        "column p.execution_time does not exist",
        "EdgeRow.edge_name is str | None and column edges.edge_name is NOT NULL",
        "EdgeRow.market_id is str and column edges.market_id may be NULL",
        "row type GameStateRow has no field for column weather",
        "view open_positions: column quantity is gone",
        "table positions: index positions_open_by_market is gone",
        'relation "platforms" does not exist',
        "table ledger.account_balance does not exist",
        "execution/references.py:",
    ):  # fmt: skip
        assert any(words in line for line in lines), words
    assert "positions: current" in lines
    assert any(line.startswith("not described: ") for line in lines)
    assert " mismatches; " in lines[-1]


BROKEN = '''
from datetime import datetime
from psycopg.sql import SQL, Identifier

GOOD = "SELECT p.id FROM positions AS p WHERE p.position_id = %s"
RENAMED = """
SELECT p.id,
       p.colour
  FROM positions AS p
"""


def fine(connection, number: int, when: datetime):
    connection.execute(GOOD, ("POS-1",))
    connection.execute("SELECT p.id FROM positions AS p WHERE p.id = %s AND p.entry_time > %s", (number, when))
    connection.execute(SQL("SELECT x.id FROM {} AS x").format(Identifier(connection.name)))
    connection.execute("CREATE TEMP TABLE mine (id bigint)")
    connection.execute("SELECT m.id FROM mine AS m")
    connection.execute("SELECT w.nothing FROM warehouse AS w")  # other database
    connection.execute("SELECT to_jsonb(%s)", (number,))
    connection.execute("SELECT to_jsonb(%s)", (connection.name,))
    return SQL("SELECT p.id FROM {positions} AS p JOIN {markets} AS m ON m.ticker = p.market_id")


def broken(connection, ref: str, number: int):
    connection.execute("SELECT id FROM margin_calls")
    connection.execute("SELECT * FROM positions")
    connection.execute("SELECT id FROM positions WHERE id = %s::text", (1,))
    connection.execute("SELECT id FROM positions WHERE id = %s", (ref,))
    connection.execute("SELECT id FROM positions WHERE market_id = %(m)s", {"m": number})
    connection.execute("SELEC id FROM positions")
    connection.execute("SELECT id FROM positions; DELETE FROM nowhere")
    connection.execute("COPY positions (id, nothing) FROM STDIN")
    connection.execute(f"INSERT INTO trades (id) SELECT colour FROM positions")
'''


def test_a_teams_broken_queries_are_named_with_file_and_line(shared_database: str, tmp_path: Path) -> None:
    """Given a folder of a team, then each broken query is named at its line with the server's reason, and no other."""
    file = tmp_path / "reports" / "daily.py"
    file.parent.mkdir()
    file.write_text(BROKEN, encoding="utf-8")

    report = checked(shared_database, tmp_path)

    found = {(one.place.line, one.sentence.rpartition(": ")[0]) for one in report.mismatches if one.place}
    assert {one.place.file for one in report.mismatches if one.place} == {file}
    first = BROKEN[: BROKEN.index("def broken")].count("\n") + 1
    expected = [
        (8, "column p.colour does not exist"),
        (first + 1, 'relation "margin_calls" does not exist'),
        (first + 2, "selects *, so its columns change with the table: name the columns"),
        (first + 3, "operator does not exist: bigint = text"),
        (first + 4, "parameter 1 is of Python type str, and the statement takes it as int8"),
        (first + 5, "parameter m is of Python type int, and the statement takes it as text"),
        (first + 7, 'relation "nowhere" does not exist'),
        (first + 8, 'column "nothing" does not exist'),
        (first + 9, 'column "colour" does not exist'),
    ]
    assert sorted(found, key=lambda one: one[0]) == [
        (line, next(said for at, said in found if at == line and words in said)) for line, words in expected
    ]
    assert {one.excerpt: one.why for one in report.undescribed if one.place.file == file} == {
        "SELECT x.id FROM {} AS x": NEVER_BY_TEXT,
        "CREATE TEMP TABLE mine (id bigint)": NOT_ANALYSED,
        "SELECT m.id FROM mine AS m": MADE_BY_CODE,
        "SELECT to_jsonb(%s)": TYPED_BY_VALUE,
    }


def test_a_table_built_by_other_code_says_why_and_which_command_helps(run: CommandLine, database: str) -> None:
    """Given generations of other code, then check and status say what changed, and what helps or who may write it."""
    by_hand(
        database,
        "UPDATE projection_generations SET fingerprint = 'other', release = '0.0.9', fingerprint_parts = jsonb_set("
        "jsonb_set(fingerprint_parts, '{folds,edge.revised}', '\"x\"'), '{events,edge.detected}', '[0, \"x\"]')"
        " WHERE projection = 'edges'",
        "UPDATE projection_generations SET fingerprint = 'other', release = '0.0.9', fingerprint_parts = '{}'"
        " WHERE projection = 'trades'",
        "UPDATE projection_generations SET fingerprint = 'newer', release = '9.9.9', columns = array_append(columns, 'worst')"
        " WHERE projection = 'markets' AND state = 'active'",
    )

    answer = run("check", "--json")
    document = answer.document
    told = "\n".join(one["message"] for one in document["mismatches"])

    assert answer.code == 1
    assert document["agree"] is False
    why = "the fold of edge.revised changed; event edge.detected is version 1 now, the rows were made with 0"
    assert f"table edges needs a rebuild: {why}: run rebuild-projection edges" in told
    assert "table trades needs a rebuild: it was built by other code (release 0.0.9), which did not tell" in told
    newer = "release 9.9.9 made its rows; this code lacks column worst"
    assert f"table markets can only be written by newer code: {newer}: start release 9.9.9" in told
    assert {(one["kind"], one["file"]) for one in document["mismatches"]} == {("definition", None)}
    states = {one["table"]: one for one in document["projections"]}
    assert (states["edges"]["state"], states["edges"]["why"]) == ("needs rebuild", why)
    assert (states["markets"]["state"], states["markets"]["why"]) == ("only newer code may write it", newer)
    assert states["positions"] == {"table": "positions", "state": "current", "why": "", "remedy": ""}

    found = {one["table"]: one for one in run("status", "--json").document["definitions"]}
    assert {name: (one["state"], one["why"]) for name, one in found.items()} == {
        name: (one["state"], one["why"]) for name, one in states.items()
    }
    shown = run("status").out
    assert "definitions 3 current of 6" in shown
    assert f"edges: needs rebuild ({why}): run rebuild-projection edges" in shown
    assert "markets: only newer code may write it (release 9.9.9 made its rows" in shown


def test_a_database_that_is_behind_says_so_and_nothing_else(run: CommandLine, database: str) -> None:
    """S69. Given a migration that is not applied, then the gap and the command are named instead of what follows from it."""
    by_hand(database, "DELETE FROM schema_migrations WHERE number >= 12")

    answer = run("check")

    assert answer.code == 1
    assert re.search(r"the database is behind: 012_trades.* not applied", answer.out)
    assert "position-ledger migrate up" in answer.out
    assert "note: statements and row types were not looked at" in answer.out


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"workers": "no.such.package"}, "neither a folder nor a package"), ({"workers": "nosuchpackage"}, "name one")],
)
def test_a_package_that_is_not_there_is_named(shared_database: str, settings: dict[str, str], words: str) -> None:
    with pytest.raises(position_ledger.LedgerError, match=words):
        checked(shared_database, **settings)


def test_folders_of_the_setting_are_checked_too(shared_database: str, tmp_path: Path) -> None:
    """Given the setting code and a role that may make no scratch database, then what could not be compared is said."""
    (tmp_path / "a.py").write_text("Q = 'SELECT colour FROM positions'\n")
    with psycopg.connect(shared_database, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS check_reader")
        owner.execute(SQL("CREATE ROLE check_reader LOGIN IN ROLE {}").format(Identifier(owner.info.user)))
    try:
        url = make_conninfo(shared_database, user="check_reader")
        report = checked(url, code=str(tmp_path))
    finally:
        with psycopg.connect(shared_database, autocommit=True) as owner:
            owner.execute("DROP ROLE check_reader")

    assert [one.place.line for one in report.mismatches if one.place] == [1]
    assert "the catalogue was not compared" in report.notes[0]
