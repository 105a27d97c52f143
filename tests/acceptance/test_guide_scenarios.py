"""The workflow guide's three scenarios and its troubleshooting list, through the command line, on a ledger with history.

Each test has a folder as `position-ledger init` makes it, and does in it what the guide has a developer do by hand.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from position_ledger import (
    ClosePosition,
    Ledger,
    MarkPosition,
    OpenPosition,
    ProjectionStuck,
    ReducePosition,
)
from position_ledger.migration import diff, read_catalogue
from position_ledger.testing.databases import Template
from tests.support.command_line import CommandLine, in_this_process, on
from tests.support.team_folder import Desk, forget_folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_QUEUE = "redis://127.0.0.1:1/0"
POSITIONS = "projections/positions.py"
LAST_FIELD = "    restated_realized: Decimal\n"
NOTES = "    notes: str | None = None\n"
"""The last field of the shipped row type, and the one that the guide adds."""
REASONS = ("manual", "stop_loss", "profit_target")


def opening(market: str, **more: object) -> OpenPosition:
    fields = {"account": "main", "market": market, "side": "YES", "quantity": 10, "entry_price": "0.40"}
    return OpenPosition(environment="paper", **{**fields, **more})


@pytest.fixture(scope="module")
def history(ledger_template: Template) -> Iterator[Template]:
    """A template with a past: three positions closed for a reason each, one partly sold, one with a note."""
    with ledger_template.clone() as url:
        with Ledger.open(database_url=url, redis_url=NO_QUEUE) as ledger:
            for reason in REASONS:
                held = ledger.execute(opening(reason)).position_id
                ledger.execute(MarkPosition(position_id=held, price="0.45"))
                ledger.execute(ClosePosition(position_id=held, price="0.50", reason=reason))
            noted = ledger.execute(opening("NOTED", metadata={"note": "hedge"})).position_id
            for price in ("0.41", "0.39", "0.42"):
                ledger.execute(MarkPosition(position_id=noted, price=price))
            ledger.execute(ReducePosition(position_id=noted, quantity=4, price="0.5"))
            ledger.execute(opening("OPEN"))
            ledger.reference.add_strategy("momentum")
            ledger.catch_up(60)
        yield replace(ledger_template, name=conninfo_to_dict(url)["dbname"], _numbers=count(1))


@pytest.fixture
def url(history: Template) -> Iterator[str]:
    with history.clone() as address:
        yield address
    forget_folders()


@pytest.fixture
def desk(url: str, tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk", in_this_process(url))


def done(desk: Desk, *arguments: str) -> str:
    """A command that must succeed; answers what it said."""
    answer = desk(*arguments)
    assert answer.code == 0, (arguments, answer)
    return answer.out


def all_agree(desk: Desk) -> None:
    """Schema as the files say, code as the schema, rows as the log."""
    done(desk, "check")
    done(desk, "verify")


def rows(url: str, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, row_factory=dict_row, options="-c search_path=ledger") as connection:
        return connection.execute(query.encode()).fetchall()


def versions(url: str) -> list[dict[str, Any]]:
    return rows(url, "SELECT * FROM positions ORDER BY id")


def without(found: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != column} for row in found]


def catalogue(url: str) -> Any:
    with psycopg.connect(url) as connection:
        return read_catalogue(connection, "ledger")


def trade(url: str, desk: Desk, *commands: Any) -> None:
    """Commands of a process that has the desk's definitions."""
    forget_folders()
    projections = desk.settings["POSITION_LEDGER_PROJECTIONS"]
    with Ledger.open(database_url=url, redis_url=NO_QUEUE, projections=projections) as ledger:
        for command in commands:
            ledger.execute(command)
        ledger.catch_up(60)


def last_number(desk: Desk) -> int:
    return max(int(file.name[:3]) for file in (desk.folder / "migrations").glob("*.sql"))


# The scenarios


@pytest.mark.uncounted
def test_a_nullable_column_is_one_file_and_one_field(desk: Desk, url: str) -> None:
    """S65, S11, S29: ``notes text`` on positions; later code fills it from history; the way back loses no event."""
    before = versions(url)
    done(desk, "migrate", "new", "add_notes", "--template", "add-column", "--table", "positions", "--column", "notes",
         "--type", "text", "--comment", "What the trader noted when it was opened.")  # fmt: skip
    desk.edit(POSITIONS, LAST_FIELD, f"{LAST_FIELD}{NOTES}")

    done(desk, "migrate", "up")

    after = versions(url)
    assert without(after, "notes") == before
    assert {row["notes"] for row in after} == {None}

    desk.edit("projections/positions.py", "        position_metadata=body.metadata,\n",
              '        position_metadata=body.metadata,\n        notes=(body.metadata or {}).get("note"),\n')  # fmt: skip
    assert desk("check").code == 1
    done(desk, "rebuild-projection", "positions", "--changed", "notes")

    noted = [row for row in versions(url) if row["market_id"] == "NOTED"]
    assert [row["notes"] for row in noted] == ["hedge"] * 5
    trade(url, desk, MarkPosition(position_id=noted[0]["position_id"], price="0.6"))
    assert [row["notes"] for row in versions(url) if row["market_id"] == "NOTED"] == ["hedge"] * 6
    all_agree(desk)


@pytest.mark.uncounted
def test_the_column_goes_again_and_what_happened_meanwhile_stays(desk: Desk, url: str) -> None:
    """S60, S65: given a column and trading with it, when rolled back by its number, then rows are those of the log."""
    before, schema = versions(url), catalogue(url)
    done(desk, "migrate", "new", "add_notes", "--template", "add-column", "--table", "positions", "--column", "notes",
         "--type", "text")  # fmt: skip
    desk.edit(POSITIONS, LAST_FIELD, f"{LAST_FIELD}{NOTES}")
    done(desk, "migrate", "up")
    trade(url, desk, opening("MEANWHILE"))
    desk.edit(POSITIONS, NOTES, "")

    done(desk, "migrate", "down", str(last_number(desk)))

    after = versions(url)
    assert after[: len(before)] == before
    assert [row["market_id"] for row in after[len(before) :]] == ["MEANWHILE"]
    assert diff(schema, catalogue(url)) == []
    done(desk, "verify")


COUNTS = '''"""contract_counts: whole contracts that a position holds."""

from __future__ import annotations

from position_ledger import Projection, Recorded, Row, replace
from position_ledger.events import PositionClosed, PositionIncreased, PositionOpened, PositionReduced


class ContractCountRow(Row, frozen=True, gc=False):
    """The columns of contract_counts beside the engine's own."""

    execution_environment: str
    quantity: int


def opened(row: ContractCountRow | None, event: Recorded[PositionOpened]) -> ContractCountRow:
    """Held from now on."""
    return ContractCountRow(event.body.environment, int(event.body.figures.quantity))


def traded(row: ContractCountRow, event: Recorded[PositionIncreased]) -> ContractCountRow:
    """More or less is held."""
    return replace(row, quantity=int(event.body.figures.quantity))


def count_id(event: Recorded[PositionOpened]) -> str:
    """COUNT- and the number of the event that opened the position."""
    return f"COUNT-{event.opened_seq}"


CONTRACT_COUNTS = Projection(
    table="contract_counts",
    key_column="count_id",
    key=count_id,
    row=ContractCountRow,
    folds={PositionOpened: opened, PositionIncreased: traded, PositionReduced: traded, PositionClosed: traded},
)
'''
LARGE = """
CREATE VIEW large_counts AS SELECT c.count_id, c.quantity, c.quantity * 2 AS twice FROM contract_counts AS c
 WHERE c.row_current_ind AND c.quantity > 5;
COMMENT ON VIEW large_counts IS 'The large ones.';
GRANT SELECT ON large_counts TO position_ledger_reader;
"""
MORE_OF_COUNTS = f"""
ALTER TABLE contract_counts ADD CONSTRAINT contract_counts_never_below_zero CHECK (quantity >= 0 AND quantity <> 13);
COMMENT ON CONSTRAINT contract_counts_never_below_zero ON contract_counts IS 'Nobody holds less than nothing.';
CREATE INDEX contract_counts_by_quantity ON contract_counts (quantity DESC) WHERE quantity > 5;
COMMENT ON INDEX contract_counts_by_quantity IS 'For the largest.';
{LARGE}
-- verify
"""


def make_counts(desk: Desk, url: str) -> None:
    """The team's projected table with an integer, a CHECK, comments, an index and two views."""
    done(desk, "migrate", "new", "contract_counts", "--template", "projected-table", "--table", "contract_counts",
         "--key", "count_id", "--column", "execution_environment", "--type", "text", "--column", "quantity",
         "--type", "integer", "--not-null", "--comment", "Whole contracts.")  # fmt: skip
    file = f"migrations/{last_number(desk):03}_contract_counts.sql"
    desk.edit(file, "\n-- verify\n", MORE_OF_COUNTS)
    desk.edit(
        file, "\nDROP VIEW current_contract_counts;", "\nDROP VIEW large_counts;\nDROP VIEW current_contract_counts;"
    )
    done(desk, "migrate", "sum")
    desk.write("projections/contract_counts.py", COUNTS)
    done(desk, "migrate", "up")
    trade(url, desk)


THIRTEEN = """
INSERT INTO ledger.contract_counts (id, count_id, row_current_ind, row_effective_date, version, effective_at,
                                    execution_environment, quantity)
VALUES (999999, 'COUNT-999999', true, now(), 1, now(), 'paper', 13)
"""


@pytest.mark.uncounted
def test_an_integer_becomes_a_bigint_and_keeps_what_hangs_on_it(desk: Desk, url: str) -> None:
    """S66: type change of a projected table's column keeps CHECK, comments, indexes, views and rights."""
    make_counts(desk, url)
    held, schema = rows(url, "SELECT * FROM contract_counts ORDER BY id"), catalogue(url)
    assert len(held) == 9
    done(desk, "migrate", "new", "wide_counts", "--template", "change-type", "--table", "contract_counts", "--column",
         "quantity", "--type", "bigint", "--from", "integer")  # fmt: skip

    done(desk, "migrate", "up")

    assert rows(url, "SELECT * FROM contract_counts ORDER BY id") == held
    assert sorted(line for line in diff(schema, catalogue(url)) if "type 'integer'" not in line) == []
    assert diff(schema, catalogue(url)) != []
    trade(url, desk, opening("HUGE", quantity=3_000_000_000, entry_price="0.01"))
    assert rows(url, "SELECT quantity, twice FROM large_counts ORDER BY quantity DESC LIMIT 1") == [
        {"quantity": 3_000_000_000, "twice": 6_000_000_000}
    ]
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(THIRTEEN)
    all_agree(desk)
    refuses_what_it_does_not_know(in_this_process(url), f"{last_number(desk):03}_wide_counts")


def refuses_what_it_does_not_know(older: CommandLine, name: str) -> None:
    """S69: a release that lacks migrations of the database changes nothing in it; its own tables it may read and write."""
    answer = older("migrate", "up")
    assert answer.code == 2
    assert name in answer.err
    assert older("check").code == 1
    assert older("positions", "--json").code == 0


def exit_reasons(desk: Desk, *reasons: str) -> int:
    """The guide's table of exit reasons, and the foreign key to it; answers the number of the first migration."""
    values = ", ".join(f"('{reason}', 'As it says.')" for reason in reasons)
    number = desk.migration(
        "exit_reasons",
        "CREATE TABLE exit_reasons (reason_code text PRIMARY KEY, description text NOT NULL);\n"
        "COMMENT ON TABLE exit_reasons IS 'Why positions are closed.';\n"
        "COMMENT ON COLUMN exit_reasons.reason_code IS 'As in positions.exit_reason.';\n"
        "COMMENT ON COLUMN exit_reasons.description IS 'For people.';\n"
        f"INSERT INTO exit_reasons (reason_code, description) VALUES {values};\n"
        "GRANT SELECT ON exit_reasons TO position_ledger_reader, position_ledger_projector;",
        "SELECT to_regclass(current_schema() || '.exit_reasons') IS NOT NULL;",
        "DROP TABLE exit_reasons;",
    )
    if not list((desk.folder / "migrations").glob("*_reasons_are_known.sql")):
        done(desk, "migrate", "new", "reasons_are_known", "--template", "add-foreign-key", "--table", "positions",
             "--column", "exit_reason", "--references", "exit_reasons(reason_code)")  # fmt: skip
    return number


def close_for_a_new_reason(url: str, desk: Desk, position_id: str) -> None:
    """A reason without a parent: the command is committed, the table waits for the parent, and goes on when it is there."""
    forget_folders()
    projections = desk.settings["POSITION_LEDGER_PROJECTIONS"]
    with Ledger.open(database_url=url, redis_url=NO_QUEUE, projections=projections) as ledger:
        closed = ledger.execute(ClosePosition(position_id=position_id, price="0.5", reason="fat finger"))
        with pytest.raises(ProjectionStuck, match="positions_exit_reason_fkey"):
            ledger.wait_for(closed.token, timeout_s=1)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("INSERT INTO ledger.exit_reasons (reason_code, description) VALUES ('fat finger', 'Oops.')")
        ledger.wait_for(closed.token, timeout_s=30)
        assert ledger.position(position_id)["exit_reason"] == "fat finger"


FOREIGN_KEYS = """
SELECT pg_get_constraintdef(k.oid) AS text, k.convalidated FROM pg_constraint AS k
 WHERE k.contype = 'f' AND k.conrelid = 'ledger.positions'::regclass
"""


@pytest.mark.uncounted
def test_a_foreign_key_to_exit_reasons(desk: Desk, url: str) -> None:
    """S67: every reason of history is a parent; the key is there, holds, and nothing else has changed."""
    before = versions(url)
    number = exit_reasons(desk, *REASONS)

    done(desk, "migrate", "up")

    assert versions(url) == before
    keys = rows(url, FOREIGN_KEYS)
    assert keys == [{"text": "FOREIGN KEY (exit_reason) REFERENCES exit_reasons(reason_code)", "convalidated": True}]
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("DELETE FROM ledger.exit_reasons WHERE reason_code = 'stop_loss'")
    noted = next(row["position_id"] for row in before if row["market_id"] == "NOTED")
    close_for_a_new_reason(url, desk, noted)
    all_agree(desk)
    now = versions(url)
    done(
        desk, "migrate", "down", str(number)
    )  # the key and the table that it refers to, though the rows are kept aside
    assert (rows(url, FOREIGN_KEYS), versions(url)) == ([], now)


@pytest.mark.soak
def test_a_reason_of_history_that_has_no_parent_stops_the_foreign_key(desk: Desk, url: str) -> None:
    """S24, S67: the sentence names migration and reason, rows and schema stay, and the corrected file goes through."""
    before = versions(url)
    number = exit_reasons(desk, "manual", "profit_target")

    answer = desk("migrate", "up")

    assert answer.code != 0
    assert "stop_loss" in answer.out + answer.err, answer
    assert "positions" in answer.err
    assert versions(url) == before
    assert rows(url, "SELECT conname FROM pg_constraint WHERE confrelid = to_regclass('ledger.exit_reasons')") == []
    trade(url, desk, opening("STILL TRADING"))

    applied = [row for row in desk("migrate", "status", "--json").document["migrations"] if row["state"] == "applied"]
    if len(applied) == number:
        done(desk, "migrate", "down", str(number))
    (file,) = (desk.folder / "migrations").glob("*_exit_reasons.sql")
    desk.edit(f"migrations/{file.name}", "('manual', ", "('stop_loss', 'As it says.'), ('manual', ")
    done(desk, "migrate", "sum")
    done(desk, "migrate", "up")
    assert len(versions(url)) == len(before) + 1
    done(desk, "verify", "positions")


# The troubleshooting list


def test_an_applied_migration_is_not_run_twice(desk: Desk, url: str) -> None:
    """S68: a second time is a no-op that says so, for all and for one by number."""
    before, schema = versions(url), catalogue(url)
    assert "nothing to do: all" in done(desk, "migrate", "up")
    assert "nothing to do: 003_positions.sql is already applied" in done(desk, "migrate", "up", "003")
    assert (versions(url), diff(schema, catalogue(url))) == (before, [])


@pytest.mark.uncounted
def test_a_database_behind_the_code_is_refused_with_the_command(desk: Desk, url: str) -> None:
    """S69: code with a column that no migration has made yet: no process starts on it; the gap and the command are told."""
    desk.edit(POSITIONS, LAST_FIELD, f"{LAST_FIELD}{NOTES}")
    before = versions(url)

    answers = {command: desk(*command.split()) for command in ("positions", "worker", "check")}

    for command, answer in answers.items():
        assert answer.code == (1 if command == "check" else 2), (command, answer)
        told = answer.out + answer.err
        assert "positions" in told
        assert "notes" in told, (command, told)
        assert "position-ledger migrate up" in told or "position-ledger migrate new" in told, (command, told)
    assert versions(url) == before


MARK = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"


@pytest.mark.uncounted
def test_one_call_empties_a_test_database(url: str, ledger_redis_url: str) -> None:
    """S70: events, rows, checkpoints and queue; ids begin anew; a database that is no test database is refused."""
    code = "from position_ledger import Ledger; from position_ledger.testing import reset; reset(Ledger.open())"
    environment = on(url, ledger_redis_url).environment()
    command = [sys.executable, "-P", "-c", code]
    run = in_this_process(url)

    with psycopg.connect(url, autocommit=True) as owner:
        name = sql.Identifier(owner.info.dbname)
        ((mark,),) = owner.execute(MARK).fetchall()
        owner.execute(sql.SQL("COMMENT ON DATABASE {} IS NULL").format(name))
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert "test database" in refused.stderr
        assert len(run("positions", "--json").document) == 5
        owner.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(mark)))
    subprocess.run(command, env=environment, timeout=60, check=True)
    assert run("positions", "--json").document == []
    with Ledger.open(database_url=url, redis_url=NO_QUEUE) as ledger:
        assert ledger.execute(opening("FIRST")).token == 3  # position, book and account, in an order of their own


def test_not_null_without_a_backfill_never_reaches_the_table(desk: Desk, url: str) -> None:
    """S71, S24: on a plain table with rows it is refused: migration, statement and cause are told, nothing is half done."""
    schema = catalogue(url)
    number = desk.migration(
        "desk_of_strategies",
        "ALTER TABLE strategies ADD COLUMN one text;\nALTER TABLE strategies ADD COLUMN desk text NOT NULL;",
        "SELECT true;",
        "ALTER TABLE strategies DROP COLUMN desk;\nALTER TABLE strategies DROP COLUMN one;",
    )

    planned = desk("migrate", "plan")
    answer = desk("migrate", "up")

    assert planned.code == 1, planned
    assert "strategies" in planned.out
    assert "desk" in planned.out
    assert answer.code == 2
    assert f"{number:03}_desk_of_strategies.sql" in answer.err
    assert "ADD COLUMN desk text NOT NULL" in answer.err
    assert diff(schema, catalogue(url)) == []
    assert desk("migrate", "status", "--json").document["migrations"][-1]["state"] == "pending"


@pytest.mark.soak
def test_not_null_on_a_projected_table_needs_no_backfill(desk: Desk, url: str) -> None:
    """S3, S71: the values come from the log; a fold that has none to give is refused before anything is touched."""
    done(desk, "migrate", "new", "highest", "--template", "add-column", "--table", "positions", "--column",
         "highest_mark", "--type", "numeric(38,18)", "--not-null", "--comment", "The best mark so far.")  # fmt: skip
    before = versions(url)
    desk.edit(POSITIONS, LAST_FIELD, f"{LAST_FIELD}    highest_mark: Decimal | None = None\n")

    refused = desk("migrate", "up")

    assert refused.code != 0
    assert "highest_mark" in refused.err, refused
    assert versions(url) == before
    begun, marked = "        restated_realized=Decimal(0),\n", "        current_price=body.price,\n"
    desk.edit(POSITIONS, "    highest_mark: Decimal | None = None\n", "    highest_mark: Decimal\n")
    desk.edit(POSITIONS, begun, f"{begun}        highest_mark=body.figures.current_price,\n")
    desk.edit(POSITIONS, marked, f"{marked}        highest_mark=max(row.highest_mark, body.price),\n")
    done(desk, "migrate", "up")
    after = versions(url)
    assert without(after, "highest_mark") == before
    noted = [row["highest_mark"] for row in after if row["market_id"] == "NOTED"]
    assert noted == [Decimal(one) for one in ("0.40", "0.41", "0.41", "0.42", "0.42")]
    all_agree(desk)


ZONELESS = """
SELECT c.table_name, c.column_name FROM information_schema.columns AS c
 WHERE c.table_schema LIKE '%ledger%' AND c.data_type LIKE '%without time zone'
"""


def test_times_are_utc_whatever_the_database_and_the_machine_say(url: str) -> None:
    """S72: no column is a timestamp without zone, and what is written is UTC under any TimeZone."""
    zoneless = rows(url, ZONELESS)
    assert zoneless == []
    here = in_this_process(url)("positions", "--json").document
    with closing(psycopg.connect(url, autocommit=True)) as owner:
        owner.execute(f"ALTER DATABASE \"{owner.info.dbname}\" SET timezone = 'Asia/Kolkata'".encode())
    there = in_this_process(url)("positions", "--json", TZ="America/New_York").document
    assert there == here
    assert all(row["entry_time"].endswith("Z") for row in there)
