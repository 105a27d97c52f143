"""Effective time against a real database: every position, every column, any time, by what is or was known."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.sql import SQL

from position_ledger import (
    AdjustFee,
    AmendSettlement,
    BustTrade,
    CommandRejected,
    ConfigurationError,
    CorrectTrade,
    Handle,
    IncreasePosition,
    MarkPosition,
    OpenPosition,
    RecordFill,
    ReducePosition,
    SetExits,
    SettlePosition,
    TransferPosition,
    VoidPosition,
)

if TYPE_CHECKING:
    from position_ledger import Command, Ledger

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNTS = {"restatements", "restated_realized", "settlement_revision"}
HEADER = {"id", "version", "row_current_ind", "row_effective_date", "row_expiration_date", "effective_at"}


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


class Desk:
    """A desk that hears of everything late, and of some of it wrongly."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.ledger = ledger
        self.random = random.Random(seed)
        self.positions: list[str] = []
        self.trades: list[str] = []
        self.tokens: list[int] = []

    def run(self, commands: int) -> None:
        for number in range(commands):
            try:
                done = self.ledger.execute(self.command(number))
            except CommandRejected:
                continue
            self.positions += [one for one in done.positions if one not in self.positions]
            self.trades += done.trades
            self.tokens.append(done.token)
        self.ledger.wait_for(self.tokens[-1])

    def command(self, number: int) -> Command:
        """Draw the next command."""
        dice, draw = self.random.random(), self.random
        minute, price, quantity = at(draw.randrange(10)), Decimal(draw.randrange(1, 100)) / 100, draw.randrange(1, 9)
        key = {"environment": "paper", "account": f"desk-{draw.randrange(2)}", "market": "M", "side": "YES"}
        if not self.positions or dice < 0.1:
            return OpenPosition(**key, quantity=quantity, entry_price="0.5", fee="0.02", effective_at=minute)
        chosen = {"position_id": draw.choice(self.positions), "effective_at": minute}
        if dice < 0.3:
            return RecordFill(
                **key, action=draw.choice(["buy", "sell"]), quantity=quantity, price=price, fee="0.01",
                effective_at=minute, on_excess=draw.choice(["flip", "refuse"]),
            )  # fmt: skip
        if dice < 0.55:
            kind = draw.choice([IncreasePosition, ReducePosition])
            return kind(**chosen, quantity=quantity, price=price, fee="0.03")
        if dice < 0.65:
            return MarkPosition(**chosen, price=price, source="walk")
        if dice < 0.7:
            return SetExits(**chosen, stop_loss_price=price, trailing_stop={"trail_amount": "0.2"})
        if dice < 0.78:
            last = chosen | {"effective_at": at(11)}
            verdicts = [SettlePosition(**last, value=1, settlement_revision=1), VoidPosition(**last)]
            amended = AmendSettlement(position_id=chosen["position_id"], value=price)
            transfers = [TransferPosition(**chosen, to_account="other", quantity=part) for part in (None, 1, 1)]
            return draw.choice([*verdicts, amended, *transfers])
        return self.correction(number, minute, price, quantity, dice)

    def correction(self, number: int, minute: datetime, price: Decimal, quantity: int, dice: float) -> Command:
        """Draw what is said about a trade."""
        draw = self.random
        said = {"trade": draw.choice(self.trades), "reason": "venue", "actor": "desk"}
        if dice < 0.86:
            return BustTrade(**said, bust_id=str(number), quantity=draw.choice([None, 1]))
        if dice < 0.95:
            told = draw.choice([{"price": price}, {"quantity": quantity}, {"execution_time": minute}])
            return CorrectTrade(**said, correction_id=str(number), **told)
        return AdjustFee(**said, adjustment_id=str(number), fee="0.05")


def plain(row: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {name: value for name, value in row.items() if name not in HEADER | COUNTS}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_current_row_is_the_fold_in_effective_order(ledger: Ledger, seed: int) -> None:
    """Law: column by column, of every position, for a time after everything."""
    desk = Desk(ledger, seed)
    desk.run(120)
    refolds = 0
    for position in desk.positions:
        now = ledger.position(position)
        reader = ledger._as_of
        heads = reader._heads({"position_id": position}, at(60), None)
        assert len(heads) == 1
        row = reader._readers["positions"].select(SQL("p.id = %(id)s"), {"id": heads[0].id}, SQL("p.id"))[0]
        folded = next(iter(reader._refolded([(row, heads[0].upto)], at(60))), None)
        refolds += now["restatements"] > 0
        assert plain(folded) == plain(now)
        assert ledger.position(position, as_of=at(60))["restated_realized"] == now["restated_realized"]
    assert refolds > 3


def _sql(text: str) -> Any:
    from psycopg.sql import SQL

    return SQL(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [4, 5])
def test_the_short_way_answers_what_the_long_way_does(
    ledger: Ledger, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(ledger, seed)
    desk.run(80)
    reader = ledger._as_of
    short = {minute: [plain(row) for row in ledger.positions(as_of=at(minute))] for minute in range(13)}
    before = reader._heads
    monkeypatch.setattr(reader, "_heads", lambda *given: [one._replace(is_refolded=True) for one in before(*given)])
    for minute, rows in short.items():
        assert [plain(row) for row in ledger.positions(as_of=at(minute))] == rows


def test_what_was_known_of_a_time_never_changes(ledger: Ledger) -> None:
    """Law 13, with both axes: whatever is corrected later."""
    desk = Desk(ledger, 11)
    desk.run(60)
    token, known = desk.tokens[-1], {}
    for minute in range(0, 13, 3):
        known[minute] = ledger.positions(as_of=at(minute), known_at=token)
        assert known[minute] == ledger.positions(as_of=at(minute))
    desk.run(60)
    for minute, rows in known.items():
        again = ledger.positions(as_of=at(minute), known_at=token)
        expiry = {"row_current_ind", "row_expiration_date"}
        assert [{n: v for n, v in row.items() if n not in expiry} for row in again] == [
            {n: v for n, v in row.items() if n not in expiry} for row in rows
        ]
    assert any(ledger.positions(as_of=at(minute)) != known[minute] for minute in known)


def test_the_late_fill_of_g8_as_of_each_time(ledger: Ledger) -> None:
    opened = ledger.execute(
        OpenPosition(
            environment="paper", account="main", market="M", side="YES", quantity=10, entry_price=".40",
            effective_at=at(1),
        )
    )  # fmt: skip
    ref = str(opened.position_id)
    sold = ledger.execute(ReducePosition(position_id=ref, quantity=5, price=".60", effective_at=at(3)))
    late = ledger.execute(IncreasePosition(position_id=ref, quantity=10, price=".50", effective_at=at(2)))
    ledger.wait_for(late.token)

    as_of = [ledger.position(ref, as_of=at(minute)) for minute in (1, 2, 3)]
    assert [(row["quantity"], row["realized_pnl"]) for row in as_of] == [(10, 0), (20, 0), (15, Decimal(".75"))]
    believed = ledger.position(ref, as_of=at(2), known_at=sold.token)
    assert (believed["quantity"], ledger.position(ref, known_at=sold.token)["realized_pnl"]) == (10, 1)
    with pytest.raises(CommandRejected, match="not found"):
        ledger.position(ref, as_of=at(0))
    assert ledger.positions(as_of=at(0)) == []
    with pytest.raises(ConfigurationError, match="no time zone"):
        ledger.positions(as_of=datetime(2026, 3, 1))  # noqa: DTZ001 - that is what is refused
    assert [row["trade_id"] for row in ledger.trades(as_of=at(2))] == [late.trades[0], opened.trades[0]]


def test_trades_are_versions(ledger: Ledger) -> None:
    opened = ledger.execute(
        OpenPosition(
            environment="paper", account="main", market="M", side="YES", quantity=10, entry_price=".40", fee=1,
            venue="v", venue_fill_id="f-1",
        )
    )  # fmt: skip
    trade = opened.trades[0]
    said = {"trade": trade, "reason": "venue", "actor": "desk"}
    first = ledger.execute(BustTrade(**said, bust_id="b-1", quantity=4))
    again = ledger.execute(BustTrade(**said, bust_id="b-1", quantity=4))
    assert (again.is_repeat, again.token, again.positions) == (True, first.token, first.positions)
    with pytest.raises(CommandRejected, match="bust_id b-1 was used before for this trade with other content"):
        ledger.execute(BustTrade(**said, bust_id="b-1", quantity=5))
    last = ledger.execute(BustTrade(**said, bust_id="b-2"))
    resent = ledger.execute(
        RecordFill(
            environment="paper", account="main", market="M", side="YES", action="buy", quantity=10, price=".40",
            venue="v", venue_fill_id="f-2",
        )
    )  # fmt: skip
    ledger.wait_for(resent.token)

    versions = ledger.rows("trades", trade_id=trade)
    assert [(row["status"], row["busted_quantity"], row["busted_amount"], row["fee"]) for row in versions] == [
        ("busted", 10, 4, 0)
    ]
    assert (versions[0]["reason"], versions[0]["actor"], versions[0]["version"]) == ("venue", "desk", 3)
    before = ledger.trades(position=str(opened.position_id), known_at=first.token)
    assert [(row["status"], row["busted_quantity"]) for row in before] == [("corrected", 4)]
    assert last.positions == (opened.position_id,)
    position = ledger.position(str(opened.position_id))
    assert (position["status"], position["exit_reason"], position["restatements"]) == ("voided", "busted", 2)


def test_a_batch_sees_its_own_late_fills(ledger: Ledger) -> None:
    """G8 in one append: the journal of a position has what the batch decided before."""
    key = {"environment": "paper", "account": "main", "market": "M", "side": "YES"}
    batch = [
        OpenPosition(**key, quantity=10, entry_price=".40", effective_at=at(1), handle="one"),
        ReducePosition(position_id=Handle("one"), quantity=5, price=".60", effective_at=at(3)),
        IncreasePosition(position_id=Handle("one"), quantity=6, price=".50", effective_at=at(2)),
        RecordFill(**key, action="buy", quantity=4, price=".50", effective_at=at(2)),
    ]
    done = ledger.execute_many(batch)
    ledger.wait_for(done[-1].token)

    row = ledger.position(str(done[0].position_id))
    assert (row["quantity"], row["realized_pnl"], row["average_entry_price"]) == (15, Decimal(".75"), Decimal(".45"))
    assert (row["restatements"], len(ledger.trades(position=row["position_id"]))) == (2, 4)
