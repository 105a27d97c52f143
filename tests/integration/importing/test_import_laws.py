"""Whatever exports of one history are imported, in whatever overlaps: the ledger is that of the whole history."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from position_ledger import Ledger
from position_ledger.importing import ImportResult, import_fills
from position_ledger.importing.mapping import FillMapping, parse_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAPPING = """
order = "{order}"
dust = "0.5"
[columns]
market = "market"
side = "side"
action = "action"
quantity = "quantity"
price = "price"
time = "time"
[constants]
account = "{account}"
[time]
formats = ["epoch_s"]
"""
START = 1_772_000_000
SPOT = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["buy", "sell"]),
    st.sampled_from(["1", "2", "2.3", "5"]),
    st.sampled_from(["YES", "NO"]),
)
HISTORY = st.lists(SPOT, min_size=1, max_size=16).map(lambda spots: sorted(spots, key=lambda spot: spot[0]))
Spot = tuple[int, str, str, str]
accounts = count(1)
LIMITS = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def take(ledger: Ledger, folder: Path, account: str, rows: Sequence[Spot], order: str) -> ImportResult:
    mapping: FillMapping = parse_mapping("law", MAPPING.format(order=order, account=account))
    lines = [f"RAIN,{side},{action},{quantity},0.5,{START + at}\n" for at, action, quantity, side in rows]
    path = folder / "export.csv"
    path.write_text("market,side,action,quantity,price,time\n" + "".join(lines if order == "by_time" else lines[::-1]))
    return import_fills(ledger, path, mapping, environment="backtest")


def ledger_of(ledger: Ledger, account: str) -> list[tuple[Any, ...]]:
    names = ("side", "status", "quantity", "cost", "realized_gross", "entry_time", "exit_time", "version")
    rows = ledger.positions(account=account)
    return sorted(tuple(str(row[name]) for name in names) for row in rows)


def check(ledger: Ledger, folder: Path, history: list[Spot], exports: list[list[Spot]], order: str) -> None:
    """Import the exports into one account and the whole history into another; both must be equal."""
    parts, whole = f"parts-{(number := next(accounts))}", f"whole-{number}"
    expected = take(ledger, folder, whole, history, order)
    results = [take(ledger, folder, parts, export, order) for export in exports]
    assert sum(result.accepted for result in results) == expected.accepted
    for result in results:
        assert result.rows == result.accepted + result.rejected + result.duplicates
    ledger.wait_for(max(result.token for result in (expected, *results)), timeout_s=30)
    assert ledger_of(ledger, parts) == ledger_of(ledger, whole)


@pytest.mark.uncounted
def test_growing_exports_that_end_anywhere_and_come_again_in_any_order(ledger_url: str, tmp_path: Path) -> None:
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as ledger:

        @LIMITS
        @given(HISTORY, st.lists(st.integers(0, 16), max_size=5), st.sampled_from(["by_time", "newest_first"]))
        def law(history: list[Spot], cuts: list[int], order: str) -> None:
            check(
                ledger,
                tmp_path,
                history,
                [*(history[:cut] for cut in cuts), history, history[: len(history) // 2]],
                order,
            )

        law()


@pytest.mark.uncounted
def test_exports_that_begin_with_any_second_and_overlap_or_touch(ledger_url: str, tmp_path: Path) -> None:
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as ledger:

        @LIMITS
        @given(HISTORY, st.lists(st.tuples(st.integers(0, 4), st.integers(0, 16)), max_size=4))
        def law(history: list[Spot], windows: list[tuple[int, int]]) -> None:
            reached, exports = 0, []
            for back, ahead in windows:
                end = min(len(history), reached + ahead)
                second = history[max(0, reached - 1)][0] - back
                exports.append([spot for spot in history[:end] if spot[0] >= second])
                reached = max(reached, end)
            second = history[max(0, reached - 1)][0]
            exports.append([spot for spot in history if spot[0] >= second])
            check(ledger, tmp_path, history, exports, "newest_first")

        law()


COVERED = st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=2, max_size=14)


def covered(path: Sequence[tuple[bool, int]]) -> list[Spot]:
    """A history in which no sell exceeds what is held, a second between any two fills."""
    held = 0
    history: list[Spot] = []
    for is_buy, quantity in path:
        if is_buy or held < quantity:
            held, action = held + quantity, "buy"
        else:
            held, action = held - quantity, "sell"
        history.append((len(history), action, str(quantity), "YES"))
    return history


def sums_of(ledger: Ledger, account: str) -> list[Any]:
    rows = ledger.positions(account=account)
    names = ("quantity", "realized_gross", "entry_quantity", "exit_quantity", "shortfall_quantity")
    return [sum(row[name] for row in rows) for name in names]


@pytest.mark.uncounted
def test_exports_in_any_order_come_to_the_same_sums(ledger_url: str, tmp_path: Path) -> None:
    """A late fill counts at its own time; a sell waits, refused, for the export that has its buy."""
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as ledger:

        @LIMITS
        @given(COVERED.map(covered), st.integers(1, 13), st.integers(1, 13))
        def law(history: list[Spot], one: int, other: int) -> None:
            parts, whole = f"parts-{(number := next(accounts))}", f"whole-{number}"
            take(ledger, tmp_path, whole, history, "by_time")
            first, second = sorted((one, other))
            pieces = [history[second:], history[first:second], history[:first], history]
            results = [take(ledger, tmp_path, parts, piece, "by_time") for piece in pieces if piece]
            assert (results[-1].rejected, sum(result.accepted for result in results)) == (0, len(history))
            again = take(ledger, tmp_path, parts, history, "by_time")
            assert (again.duplicates, again.events) == (len(history), 0)
            ledger.wait_for(results[-1].token or max(result.token for result in results), timeout_s=30)
            assert sums_of(ledger, parts) == sums_of(ledger, whole)

        law()
