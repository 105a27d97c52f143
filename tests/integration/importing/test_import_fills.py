from __future__ import annotations

import csv
import gzip
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import ConfigurationError, Ledger
from position_ledger.importing import ImportResult, import_fills, load_mapping
from position_ledger.importing.files import FileDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PRESET = "polymarket-scrape"
DUST = Fraction(1, 100)
COMPUTED = ("quantity", "cost", "realized", "bought", "sold")
EVENTS = 3415 + (1907 + 2 * 385) + 3415
"""Of the real file: each accepted fill is an event of its position, the book hears 1907 that stay open and 385 that open
and close, and each fill is booked on its account."""
ROUNDING = Fraction(1, 10**16)
"""More than all roundings to 18 places of one position together, less than any digit of the file that matters."""


def real_file() -> Path:
    """The real fills lie beside the checkout, or beside the folder that it is in."""
    for folder in (ROOT.parent, ROOT.parent.parent):
        path = folder / "shared" / "data" / "polymarket_fills.csv.gz"
        if path.exists():
            return path
    pytest.skip("the real fills are not beside this checkout")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as opened:
        yield opened


def real_lines() -> list[str]:
    return gzip.decompress(real_file().read_bytes()).decode().splitlines(keepends=True)


def events_of(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM ledger.events").fetchone()
        assert row is not None
        return int(row[0])


def settle_down(ledger: Ledger, result: ImportResult) -> None:
    ledger.wait_for(result.token, timeout_s=60)


def refused_rows(path: Path) -> list[int]:
    with path.open(newline="") as file:
        return [int(row["row"]) for row in csv.DictReader(file)]


def recomputed(rows: list[list[str]]) -> tuple[set[int], list[tuple[Any, ...]]]:
    """Another accounting of the file, in fractions: numbers of the accepted rows, and figures of every position.

    Only prices are rounded, half-even to 18 places; the file has some with 19.
    """
    accepted: set[int] = set()
    positions: list[tuple[Any, ...]] = []
    open_ones: dict[tuple[str, ...], dict[str, Fraction]] = {}
    for number, row in sorted(enumerate(rows, 1), reverse=True):
        account, action, shares, side, market, price, _, _ = row
        key, quantity, each = (account, market, side.upper()), Fraction(shares), round(Fraction(price), 18)
        held = open_ones.get(key)
        if not account.strip() or (action == "SELL" and (held is None or quantity - held["quantity"] > DUST)):
            continue
        accepted.add(number)
        if held is None:
            held = open_ones[key] = dict.fromkeys(COMPUTED, Fraction(0))
            positions.append((*key, held))
        if action == "BUY":
            held["quantity"] += quantity
            held["cost"] += quantity * each
            held["bought"] += quantity
            continue
        sold = min(quantity, held["quantity"])
        released = held["cost"] * sold / held["quantity"]
        held["realized"] += sold * each - released
        held["cost"] -= released
        held["quantity"] -= sold
        held["sold"] += sold
        if not held["quantity"]:
            del open_ones[key]
    return accepted, positions


@pytest.fixture
def imported(ledger: Ledger, tmp_path: Path) -> ImportResult:
    return import_fills(ledger, real_file(), PRESET, environment="paper", rejects_path=tmp_path / "rejects.csv")


@pytest.mark.uncounted
def test_the_real_file_gives_what_an_independent_computation_gives(
    ledger: Ledger, tmp_path: Path, imported: ImportResult
) -> None:
    # given 4,000 real fills, when they are imported
    settle_down(ledger, imported)
    # then the counts are those that were computed elsewhere
    assert (imported.rows, imported.accepted, imported.rejected, imported.duplicates) == (4000, 3415, 585, 0)
    assert imported.reasons == {"quantity_exceeds_held": 372, "text_blank": 213}
    rows = ledger.positions()
    assert Counter(row["status"] for row in rows) == {"open": 1907, "closed": 385}
    assert {row["strategy_id"] for row in rows} == {None}
    # and every row is an event or a line of the rejects file, and every position has the figures of its rows
    accepted, positions = recomputed(list(csv.reader(real_lines()[1:])))
    assert set(refused_rows(tmp_path / "rejects.csv")) == set(range(1, 4001)) - accepted
    names = ("quantity", "cost", "realized_gross", "entry_quantity", "exit_quantity")
    expected = sorted((*position[:3], *(position[3][name] for name in COMPUTED)) for position in positions)
    found = sorted(
        (row["account_id"], row["market_id"], row["side"], *(Fraction(row[name]) for name in names)) for row in rows
    )
    assert [row[:3] for row in found] == [position[:3] for position in expected]
    for row, position in zip(found, expected, strict=True):
        for figure, exact in zip(row[3:], position[3:], strict=True):
            assert abs(figure - exact) < ROUNDING


@pytest.mark.uncounted
def test_importing_again_adds_nothing_and_refuses_the_same_rows(
    ledger: Ledger, ledger_url: str, tmp_path: Path, imported: ImportResult
) -> None:
    before = events_of(ledger_url)
    again = import_fills(ledger, real_file(), PRESET, environment="paper", rejects_path=tmp_path / "again.csv")
    assert (again.accepted, again.rejected, again.duplicates, again.events) == (0, 585, imported.accepted, 0)
    assert events_of(ledger_url) == before == imported.events
    assert refused_rows(tmp_path / "again.csv") == refused_rows(tmp_path / "rejects.csv")


@pytest.mark.soak
@pytest.mark.parametrize("cuts", [(3999, 3000, 1), (2222, 2221, 37)])
def test_longer_exports_of_the_same_history_add_only_what_is_new(
    ledger: Ledger, ledger_url: str, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    # given exports that each have newer rows on top of the ones before
    header, *rows = real_lines()
    path = tmp_path / "export.csv"
    results: list[ImportResult] = []
    for cut in (*cuts, 0):
        path.write_text(header + "".join(rows[cut:]))
        # when they are imported one after the other
        result = import_fills(ledger, path, PRESET, environment="paper")
        assert result.duplicates == sum(earlier.accepted for earlier in results)
        results.append(result)
    # then the ledger is as if only the longest had been imported
    assert sum(result.accepted for result in results) == 3415
    settle_down(ledger, results[-1])
    _, positions = recomputed(list(csv.reader(rows)))
    assert Counter(row["status"] for row in ledger.positions()) == {"open": 1907, "closed": 385}
    quantities = sorted(round(Fraction(row["quantity"]), 15) for row in ledger.positions())
    assert quantities == sorted(round(held["quantity"], 15) for *_, held in positions)
    # and a shorter export changes nothing any more
    before = events_of(ledger_url)
    path.write_text(header + "".join(rows[cuts[0] :]))
    assert import_fills(ledger, path, PRESET, environment="paper").accepted == 0
    assert events_of(ledger_url) == before


IMPORT = """
import sys
from position_ledger import Ledger
from position_ledger.importing import import_fills
with Ledger.open(database_url=sys.argv[1], redis_url="redis://unused") as ledger:
    def told(done, total):
        print("recorded" if total else "read", done, flush=True)
    result = import_fills(ledger, sys.argv[2], "polymarket-scrape", environment="paper", progress=told)
    print("end", result.accepted, result.rejected, result.duplicates, result.events, flush=True)
"""


def importing(url: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.Popen(
        [sys.executable, "-c", IMPORT, url, str(real_file())], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.chaos
@pytest.mark.uncounted
@pytest.mark.parametrize("kill_after", [500, pytest.param(2000, marks=pytest.mark.soak)])
def test_an_import_killed_half_way_and_run_again_ends_the_same(
    ledger: Ledger, ledger_url: str, tmp_path: Path, kill_after: int
) -> None:
    # given an import that is killed in the middle
    with importing(ledger_url) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("recorded") and int(line.split()[1]) >= kill_after:
                process.send_signal(signal.SIGKILL)
                break
        process.wait(timeout=30)
    assert process.returncode == -signal.SIGKILL
    half = events_of(ledger_url)
    assert 0 < half < EVENTS
    # when it is run again
    result = import_fills(ledger, real_file(), PRESET, environment="paper", rejects_path=tmp_path / "rejects.csv")
    # then what was there is found, and the end is that of an import that ran through
    assert (result.accepted + result.duplicates, result.rejected, half + result.events) == (3415, 585, EVENTS)
    assert result.duplicates > 0
    accepted, _ = recomputed(list(csv.reader(real_lines()[1:])))
    assert set(refused_rows(tmp_path / "rejects.csv")) == set(range(1, 4001)) - accepted
    settle_down(ledger, result)
    assert Counter(row["status"] for row in ledger.positions()) == {"open": 1907, "closed": 385}


@pytest.mark.chaos
@pytest.mark.uncounted
def test_two_imports_of_the_same_file_at_the_same_time_record_it_once(ledger_url: str) -> None:
    with importing(ledger_url) as first, importing(ledger_url) as second:
        ends = [process.communicate(timeout=100)[0].splitlines()[-1].split() for process in (first, second)]
    counts = [[int(count) for count in end[1:]] for end in ends]
    assert sum(accepted for accepted, *_ in counts) == 3415
    assert [rejected for _, rejected, *_ in counts] == [585, 585]
    assert events_of(ledger_url) == EVENTS


# Files that cannot be read


def gz(text: str) -> bytes:
    return gzip.compress(text.encode())


HEADER = "user_id,trade_direction,shares,option_yes_no,option_type,price,total_trade_amount,timestamp\n"
LINE = 'ann,BUY,10,Yes,Rain?,0.4,4.0,"Thursday, February 26, 2026 20:03:48 EST"\n'
MANY = HEADER + "".join(LINE.replace("ann", f"user{n}") for n in range(3000))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gz(MANY)[:-5], "is a damaged or truncated gzip"),
        (gz(MANY)[: len(gz(MANY)) // 2], "is a damaged or truncated gzip"),
        (gz(MANY)[:-8] + bytes(8), "is a damaged or truncated gzip"),
        (b"PK\x03\x04rest", "is a zip archive; unpack it"),
        (b"", "is empty, it has not even a header"),
        (b"\n\n", "is empty, it has not even a header"),
        (
            HEADER.replace("shares", "size").encode(),
            "has no column 'shares', which mapping polymarket-scrape needs once",
        ),
        (HEADER.replace("timestamp", "price").encode(), "has 2 columns 'price', which mapping"),
        ((MANY + LINE.replace("ann", "zo\xeb")).encode("latin-1"), "is not utf-8 after line "),
        ((MANY + '"open').encode(), "is no well-formed CSV at line 300"),
        (
            HEADER.encode() + "".join(sorted(LINE.replace(":48", f":{n}") for n in range(10, 20))).encode(),
            "not newest first",
        ),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_leaves_no_event(
    ledger: Ledger, ledger_url: str, tmp_path: Path, content: bytes, sentence: str
) -> None:
    path, rejects = tmp_path / "fills.csv", tmp_path / "rejects.csv"
    path.write_bytes(content)
    with pytest.raises(FileDamaged) as error:
        import_fills(ledger, path, PRESET, environment="paper", rejects_path=rejects)
    assert sentence in str(error.value)
    assert str(error.value).endswith("nothing was imported")
    assert events_of(ledger_url) == 0
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_wrong_with_the_call_is_told_before_the_file_is_read(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "fills.csv"
    path.write_text(MANY)
    with pytest.raises(
        ConfigurationError, match="environment cannot be 'prod'; it must be one of live, paper, backtest"
    ):
        import_fills(ledger, path, PRESET, environment="prod")
    with pytest.raises(FileDamaged, match=r"none\.csv does not exist"):
        import_fills(ledger, tmp_path / "none.csv", PRESET, environment="paper")
    with pytest.raises(FileDamaged, match="is a folder or device"):
        import_fills(ledger, tmp_path, PRESET, environment="paper")
    with pytest.raises(ConfigurationError, match="is the imported file itself"):
        import_fills(ledger, path, PRESET, environment="paper", rejects_path=path)
    with pytest.raises(ConfigurationError, match="cannot be written: it is a folder"):
        import_fills(ledger, path, PRESET, environment="paper", rejects_path=tmp_path)
    with pytest.raises(ConfigurationError, match=r"rejects .*/no/rejects\.csv cannot be written"):
        import_fills(ledger, path, PRESET, environment="paper", rejects_path=tmp_path / "no" / "rejects.csv")


def test_rows_that_are_no_fills_are_refused_one_by_one(ledger: Ledger, tmp_path: Path) -> None:
    # given a file with a byte order mark, CRLF, blank lines, quoted newlines and rows that are broken each in a way
    lines = [
        LINE,
        "ragged,BUY,10\n",
        "\n",
        LINE.replace("ann", "a\x00b"),
        LINE.replace("EST", "PST"),
        LINE.replace("ann", ""),
        LINE.replace("Rain?", '"Rain,\nor snow?"'),
        LINE.replace(",4.0,", ",5.0,"),
        LINE.replace("ann", " ann "),
    ]
    path, rejects = tmp_path / "fills.csv", tmp_path / "rejects.csv"
    path.write_bytes(("\ufeff" + HEADER + "".join(lines)).replace("\n", "\r\n").encode())
    # when it is imported
    result = import_fills(ledger, path, PRESET, environment="paper", rejects_path=rejects)
    # then the good rows are recorded, and the others have their reason
    assert (result.rows, result.accepted, result.rejected) == (8, 3, 5)
    with rejects.open(newline="") as file:
        header, *refused = csv.reader(file)
    assert header == ["row", "reason", "sentence", *HEADER.strip().split(",")]
    assert [(row[0], row[1]) for row in refused] == [
        ("2", "row_ragged"),
        ("3", "row_damaged"),
        ("4", "time_not_in_zone"),
        ("5", "text_blank"),
        ("7", "amount_mismatch"),
    ]
    assert refused[0][3:] == ["ragged", "BUY", "10"]
    settle_down(ledger, result)
    assert sorted((row["account_id"], row["market_id"], row["quantity"]) for row in ledger.positions()) == [
        ("ann", "Rain,\r\nor snow?", 10),
        ("ann", "Rain?", 20),
    ]


# Fills of the same time


def export(path: Path, *rows: str) -> Path:
    """Rows are given oldest first, as «second action quantity»; the file has the newest first."""
    lines = [
        f'ann,{action},{quantity},Yes,Rain?,0.5,,"Thursday, February 26, 2026 20:03:{second} EST"\n'
        for second, action, quantity in (row.split() for row in rows)
    ]
    path.write_text(HEADER + "".join(reversed(lines)))
    return path


def test_a_sell_that_was_refused_stays_refused_when_a_buy_of_the_same_second_was_recorded_since(
    ledger: Ledger, tmp_path: Path
) -> None:
    # given a sell of what was bought only after it, within one second
    short = export(tmp_path / "short.csv", "10 BUY 5", "11 SELL 7")
    long = export(tmp_path / "long.csv", "10 BUY 5", "11 SELL 7", "11 BUY 20", "11 SELL 12")
    first = import_fills(ledger, short, PRESET, environment="paper")
    assert (first.accepted, first.reasons) == (1, {"quantity_exceeds_held": 1})
    # when the longer export is imported, it is refused again
    second = import_fills(ledger, long, PRESET, environment="paper")
    assert (second.accepted, second.duplicates, second.reasons) == (2, 1, {"quantity_exceeds_held": 1})
    # and when both are imported once more, it could be covered now, and is still refused
    for path, duplicates in ((long, 3), (short, 1), (long, 3)):
        again = import_fills(ledger, path, PRESET, environment="paper")
        assert (again.accepted, again.duplicates, again.reasons) == (0, duplicates, {"order_unknown": 1})
    settle_down(ledger, second)
    assert [row["quantity"] for row in ledger.positions()] == [13]


def test_a_sell_of_the_same_second_that_what_was_held_before_covers_is_recorded(ledger: Ledger, tmp_path: Path) -> None:
    import_fills(ledger, export(tmp_path / "a.csv", "10 BUY 5", "11 BUY 1", "11 SELL 1"), PRESET, environment="paper")
    result = import_fills(ledger, export(tmp_path / "b.csv", "11 SELL 4"), PRESET, environment="paper")
    assert (result.accepted, result.rejected) == (1, 0)


def test_a_sell_that_was_refused_stays_refused_when_newer_buys_were_recorded_since(
    ledger: Ledger, tmp_path: Path
) -> None:
    rows = ("10 SELL 7", "11 BUY 20", "12 SELL 20", "13 BUY 30")
    for count in (1, 2, 3, 4, 2, 1, 4):
        result = import_fills(ledger, export(tmp_path / "e.csv", *rows[:count]), PRESET, environment="paper")
        assert result.rejected == 1
        assert result.reasons == {"quantity_exceeds_held": 1}


# Other files


OWN_MAPPING = """
order = "oldest_first"
[file]
delimiter = ";"
[columns]
account = "acct"
market = "ticker"
side = "side"
action = "action"
quantity = "count"
price = "yes_price"
time = "created"
fill_id = "trade_id"
order_id = "order_id"
fee = "fee"
fee_currency = "ccy"
strategy = "strategy"
liquidity = "role"
[constants]
venue = "kalshi"
[price]
space = "yes"
scale = "0.01"
[numbers]
thousands = ","
strip = ["$"]
"""
OWN_FILE = """acct;ticker;side;action;count;yes_price;created;trade_id;order_id;fee;ccy;strategy;role
me;RAIN;no;BUY;1,000;70;2026-02-26T20:03:48.5Z;T1;O1;$7.00;USD;4;taker
me;RAIN;no;sell;400;60;2026-02-26T20:03:48.5+00:00;T2;O2;$2.80;USD;4;maker
me;RAIN;no;sell;400;60;2026-02-26T20:03:48.5+00:00;T2;O2;$2.80;USD;4;maker
me;RAIN;no;sell;500;60;2026-02-26T20:03:48.5+00:00;T2;O2;$2.80;USD;4;maker
me;RAIN;yes;buy;10;70;2026-02-26T20:04:00Z;T3;;;;4;
me;RAIN;no;buy;1;101;2026-02-26T20:04:00Z;T4;;;;4;
me;RAIN;no;sell;10;60;2026-02-26T20:05:00Z;T5;;0.1;EUR;4;
"""


def test_a_file_with_ids_fees_iso_times_cents_and_yes_prices(ledger: Ledger, tmp_path: Path) -> None:
    path, mapping = tmp_path / "fills.csv", tmp_path / "mine.toml"
    path.write_text(OWN_FILE)
    mapping.write_text(OWN_MAPPING)
    result = import_fills(ledger, path, mapping, environment="live")
    assert (result.rows, result.accepted, result.duplicates) == (7, 3, 1)
    assert result.reasons == {"fee_currency_unsupported": 1, "fill_id_reused": 1, "price_out_of_range": 1}
    settle_down(ledger, result)
    no, yes = sorted(ledger.positions(), key=lambda row: str(row["side"]))
    assert (no["quantity"], no["cost"], no["realized_gross"]) == (600, Decimal(180), Decimal(40))
    assert (no["open_fees"], no["close_fees"], no["realized_pnl"]) == (7, Decimal("2.8"), Decimal("30.2"))
    assert (no["strategy_id"], no["execution_environment"], yes["average_entry_price"]) == (4, "live", Decimal("0.7"))
    again = import_fills(ledger, path, load_mapping(mapping), environment="live")
    assert (again.accepted, again.duplicates, again.events, again.rejected) == (0, 4, 0, 3)


def test_events_tell_which_row_of_which_file_they_come_from(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    """From an event back to the line that it was made of."""
    import_fills(ledger, export(tmp_path / "e.csv", "10 BUY 5", "11 BUY 7"), PRESET, environment="paper")
    with psycopg.connect(ledger_url) as connection:
        told = connection.execute("SELECT metadata FROM ledger.events WHERE topic = 'position.increased'").fetchone()
    assert told is not None
    assert told[0]["causation_id"] == "row:1"
    assert told[0]["correlation_id"].startswith("import:")
    assert told[0]["correlation_id"].endswith(":e.csv")


def test_the_rejects_file_is_replaced_whole(ledger: Ledger, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.csv"
    rejects.write_text("of last week\n")
    source = export(tmp_path / "e.csv", "10 BUY 5")
    import_fills(ledger, source, PRESET, environment="paper", rejects_path=rejects)
    assert list(csv.reader(io.StringIO(rejects.read_text()))) == [
        ["row", "reason", "sentence", *HEADER.strip().split(",")]
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.csv", "rejects.csv"]
