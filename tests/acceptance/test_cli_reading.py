"""Reading commands: documents that machines can read, tables that people can."""

from __future__ import annotations

import csv
import io
import signal
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger import ClosePosition, IncreasePosition, Ledger, MarkPosition, OpenPosition, ReducePosition
from position_ledger.cli.app import COMMANDS
from tests.support.command_line import CommandLine, in_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

LONG_MARKET = "KXNBA-[bold]a name with markup, \x1b[31mcolour\x07 and much more than a terminal has room for 東京"
PRICES = ("entry_price", "current_price", "quantity", "realized_pnl", "unrealized_pnl", "cost")


@pytest.fixture(scope="module")
def database(ledger_template: Template) -> Iterator[str]:
    """Three positions: one reduced, one closed, one with a name that wants to drive the terminal."""
    with ledger_template.clone() as url:
        with Ledger.open(database_url=url, redis_url="unix:///nowhere/valkey.sock") as ledger:
            first = ledger.execute(_open("main", "KXNBA-CLE", "YES", 1000, "0.42")).position_id
            second = ledger.execute(_open("second", "KXNBA-NYK", "NO", 3, "0.123456789012345678")).position_id
            assert first is not None
            assert second is not None
            ledger.execute(_open("main", LONG_MARKET, "YES", 7, "0.5"))
            ledger.execute(MarkPosition(position_id=first, price=Decimal("0.55")))
            ledger.execute(ReducePosition(position_id=first, quantity=Decimal("0.5"), price=Decimal("0.61")))
            last = ledger.execute(ClosePosition(position_id=second, price=Decimal("0.2"), reason="profit_target"))
            ledger.wait_for(last.token)
        yield url


@pytest.fixture(scope="module")
def run(database: str) -> CommandLine:
    return in_this_process(database)


def first_of(run: CommandLine) -> str:
    """The id of the first position: its number is that of its event, beside which its book's may come first."""
    return next(
        str(row["position_id"]) for row in run("positions", "--json").document if row["market_id"] == "KXNBA-CLE"
    )


def _open(account: str, market: str, side: str, quantity: int, price: str) -> OpenPosition:
    return OpenPosition(
        account=account,
        market=market,
        strategy=1,
        model=2,
        side=side,
        quantity=quantity,
        entry_price=Decimal(price),
        environment="paper",
    )


def test_positions_as_json_are_every_column_exactly(run: CommandLine, database: str) -> None:
    """Given positions, when listed as JSON, then decimals are plain strings, times are UTC with Z, and nothing is lost."""
    answer = run("positions", "--json")

    assert (answer.code, answer.err) == (0, "")
    with Ledger.open(database_url=database, redis_url="unix:///nowhere/valkey.sock") as ledger:
        rows = ledger.positions()
    assert [row["position_id"] for row in answer.document] == [row["position_id"] for row in rows]
    for told, row in zip(answer.document, rows, strict=True):
        assert told.keys() == row.keys()
        assert all(told[name] is None or "E" not in told[name].upper() for name in PRICES)
        assert [None if told[name] is None else Decimal(told[name]) for name in PRICES] == [row[n] for n in PRICES]
        assert told["entry_time"].endswith("Z")
        assert datetime.fromisoformat(told["entry_time"]) == row["entry_time"]


def test_show_takes_any_id_that_a_position_ever_had(run: CommandLine) -> None:
    """Given three versions of a position, when shown by POS-n and by the id of an old one, then it is the same row."""
    versions = run("history", first_of(run), "--json").document
    by_name = run("show", first_of(run), "--json")
    by_old_id = run("show", str(versions[1]["id"]), "--json")

    assert [row["version"] for row in versions] == [1, 2, 3]
    assert by_name.document == by_old_id.document == versions[-1]
    assert "average_entry_price    0.42" in run("show", first_of(run)).out


def test_events_are_the_story_of_the_versions(run: CommandLine) -> None:
    """Given a position, when its events are read, then each has made the version of its number."""
    events = run("events", first_of(run), "--json").document
    versions = run("history", first_of(run), "--json").document

    assert [event["topic"] for event in events] == ["position.opened", "position.marked", "position.reduced"]
    assert [event["seq"] for event in events] == [row["id"] for row in versions]
    assert events[1]["body"]["price"] == "0.55"


def test_filters_narrow_the_list(run: CommandLine) -> None:
    """Given three positions, when filtered, then only those that pass every filter are listed."""
    opened = run("positions", "--status", "open", "--account", "main", "--market", "KXNBA-CLE", "--json").document
    closed = run("positions", "--status", "closed", "--side", "NO", "--strategy", "1", "--format", "json").document
    other = run("positions", "--environment", "live", "--json").document

    assert [row["position_id"] for row in opened] == [first_of(run)]
    assert [row["exit_reason"] for row in closed] == ["profit_target"]
    assert other == []


def test_known_at_is_what_the_ledger_knew(run: CommandLine) -> None:
    """Given a position that was marked later, when asked as known before the mark, then the old price is told."""
    versions = run("history", first_of(run), "--json").document
    before = run("positions", "--known-at", versions[0]["row_effective_date"], "--json").document

    assert [(row["position_id"], row["current_price"]) for row in before] == [(first_of(run), "0.42")]
    assert run("positions", "--known-at", "2000-01-01T00:00:00+05:30", "--json").document == []


def test_as_of_is_what_had_happened(ledger_template: Template) -> None:
    """Given a late entry, when asked as of a time before and after it, then it counts at its own time; with known_at, not
    before it was known."""
    with ledger_template.clone() as url:
        with Ledger.open(database_url=url, redis_url="unix:///nowhere/valkey.sock", consistency="strong") as ledger:
            early = _open("main", "KXNBA-CLE", "YES", 10, "0.40").model_copy(
                update={"effective_at": datetime(2026, 3, 1, tzinfo=UTC)}
            )
            position = ledger.execute(early).position_id
            sale = {"price": Decimal("0.60"), "effective_at": datetime(2026, 3, 3, tzinfo=UTC)}
            ledger.execute(ReducePosition(position_id=position, quantity=5, **sale))
            known = ledger.history(position)[-1]["row_effective_date"]
            ledger.execute(
                IncreasePosition(
                    position_id=position, quantity=10, price=Decimal("0.50"), effective_at="2026-03-02T00:00:00Z"
                )
            )
        run = in_this_process(url)

        def told(command: str, *arguments: str) -> list[tuple[str, str]]:
            document = run(command, *arguments, "--json").document
            rows = document if isinstance(document, list) else [document]
            return [(row["quantity"], row["realized_pnl"]) for row in rows]

        noon = "2026-03-02T12:00:00Z"
        assert told("positions", "--as-of", "2026-02-01T00:00:00Z") == []
        assert told("positions", "--as-of", "2026-03-01T12:00:00Z") == [("10", "0")]
        assert told("positions", "--as-of", noon) == told("show", str(position), "--as-of", noon) == [("20", "0")]
        assert told("positions", "--as-of", noon, "--known-at", known.isoformat()) == [("10", "0")]
        assert told("show", str(position)) == [("15", "0.75")]
        assert len(run("trades", "--as-of", noon, "--json").document) == 2
        assert run("positions", "--as-of", noon, "--format", "csv").code == 0


def test_csv_has_what_json_has(run: CommandLine) -> None:
    """Given positions, when written as CSV, then header and cells are those of the JSON documents."""
    lines = list(csv.DictReader(io.StringIO(run("positions", "--format", "csv").out)))
    documents = run("positions", "--json").document

    assert [line["position_id"] for line in lines] == [row["position_id"] for row in documents]
    assert list(lines[0]) == list(documents[0])
    assert [line["entry_price"] for line in lines] == [row["entry_price"] for row in documents]
    assert lines[0]["market_id"] == documents[0]["market_id"]


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_the_terminal_and_cut_no_number(run: CommandLine, width: int) -> None:
    """Given long names, when listed in so many columns, then lines fit, numbers are whole and nothing drives it."""
    answer = run("positions", COLUMNS=str(width))
    lines = answer.out.splitlines()

    assert answer.code == 0
    assert lines[-1] == "3 positions"
    assert max(len(line) for line in lines) <= width
    assert "\x1b" not in answer.out
    assert "\x07" not in answer.out
    assert "[bold]" in answer.out
    assert "999.5" in next(line for line in lines if line.startswith(f"{first_of(run)} ")).split()
    assert any("0.123457" in line.split() for line in lines)
    assert ("opened (UTC)" in lines[0]) == (width == 200)


def test_stale_rows_are_called_stale(ledger_template: Template) -> None:
    """Given an event that no worker has projected for a minute, when a position is read, then a warning says so."""
    with ledger_template.clone() as url:
        with Ledger.open(database_url=url, redis_url="unix:///nowhere/valkey.sock") as ledger:
            ledger.wait_for(ledger.execute(_open("main", "KXNBA-CLE", "YES", 5, "0.42")).token)
            ledger.execute(MarkPosition(position_id=first_of(in_this_process(url)), price=Decimal("0.9")))
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("ALTER TABLE ledger.events DISABLE TRIGGER append_only")
            owner.execute("UPDATE ledger.events SET recorded_at = recorded_at - interval '1 minute'")

        answer = in_this_process(url)("show", first_of(in_this_process(url)), "--json")

    assert answer.document["current_price"] == "0.42"
    assert "1 events (6" in answer.err
    assert "start position-ledger worker" in answer.err


def test_a_closed_pipe_is_no_error(run: CommandLine) -> None:
    """Given a reader that ends at once, when a list is written, then the command ends quietly, as SIGPIPE would end it."""
    process = run.start("positions", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    assert process.stderr.read() == ""
    assert process.wait(30) == 141
    process.stderr.close()


def test_ctrl_c_is_quiet(run: CommandLine) -> None:
    """Given a watch, when it is interrupted, then it ends with 130 and without a word."""
    with run.start("status", "--watch", "--interval", "0.2") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("PostgreSQL")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == ""
        assert process.wait(30) == 130


def test_help_answers_without_loading_what_commands_stand_on(run: CommandLine) -> None:
    """Given nothing but the program, when asked for help, then it is told from the table of commands alone."""
    heavy = ("dramatiq", "eventsourcing", "psycopg", "pydantic", "redis", "rich")
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr))\n"
        "from position_ledger.cli import main; main()"
    )
    answer = run("--help", entry=code)

    assert (answer.code, answer.err.strip()) == (0, "[]")
    assert all(f"  {name} " in answer.out for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"docs", "import", "migrate", "reference"}))
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    """Given a command of the table, when loaded, then its help has an example that names it."""
    from position_ledger.cli.app import app

    command = app.command_named(name)

    assert command.name == name
    assert command.help is not None
    assert f"{name} " in f"{command.help} ".replace("\n", " ")
    assert "Example" in command.help


def test_status_tells_lag_workers_and_servers(run: CommandLine) -> None:
    """Given a ledger without workers and Redis, when asked, then both are told and the table is up to date."""
    found = run("status", "--json").document

    assert [server["kind"] for server in found["servers"]] == ["PostgreSQL", "Redis"]
    assert found["servers"][0]["version"].split(".")[0] == "18"
    assert found["servers"][1]["problem"]
    assert (found["workers_alive"], found["queue_length"]) == (0, None)
    assert found["schema_version"].startswith("0")
    assert {"positions", "account_balance"} <= {table["table"] for table in found["projections"]}
    for table in found["projections"]:
        assert (table["state"], table["lag_events"], table["lag_s"]) == ("active", 0, 0.0)
        assert (table["shards"], table["shards_held"], table["shards_free"]) == (16, 0, 16)
        assert found["mark"] == found["horizon"] == table["position"]
    assert found["events"] > 0


def test_times_of_a_far_zone_are_understood(run: CommandLine) -> None:
    """Given a time with an offset, when asked as known then, then it is the moment that it means."""
    versions = run("history", first_of(run), "--json").document
    moment = datetime.fromisoformat(versions[0]["row_effective_date"]).astimezone(UTC)
    assert run("positions", "--known-at", moment.isoformat(), "--json").document[0]["version"] == 1
