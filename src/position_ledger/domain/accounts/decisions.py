"""Deciding what moves money: commands on accounts, and the account's side of every command on positions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.accounts.account import Account, AccountKey, account_stream, evolve_account
from position_ledger.domain.accounts.commands import AdjustCash, Deposit, RecordCash, SetOpeningBalance, Withdraw
from position_ledger.domain.accounts.effects import Effect, effect, effect_of_return
from position_ledger.domain.accounts.events import CashMoved, PositionBooked, Postings
from position_ledger.domain.draft import Append, Decision, Draft, Subject, effective_time
from position_ledger.domain.events import ExitsSet, ExitTriggered, PositionMarked, StreamRef
from position_ledger.domain.families import ACCOUNT, POSITION
from position_ledger.domain.figures import require_fits
from position_ledger.domain.numbers import ZERO, minus, plus
from position_ledger.domain.position import Position, evolve
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import CashKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

    from position_ledger.domain.command import Command
    from position_ledger.domain.draft import Streams
    from position_ledger.domain.event import Event
    from position_ledger.domain.parts import HandedOn, Restated

__all__ = ["ACCOUNT_DECIDERS", "account_of", "booked", "with_accounts"]

_MOVE_NO_MONEY: Final = (PositionMarked, ExitTriggered, ExitsSet)
_RETURNED: Final = "transfer_restated"
"""Cause of what the giver of a transfer gets back, or gives more, like that of what its receiver hears."""
_MONEY_EVENTS: Final = frozenset(POSITION.events) - frozenset(_MOVE_NO_MONEY)


def account_of(key: AccountKey, streams: Streams) -> Account:
    """Return the state of an account; an empty one if nothing was booked yet."""
    return streams.state(account_stream(key)) or Account()


# The account's side of positions


def booked(command: Command, decision: Decision, streams: Streams, *, is_intention: bool) -> Decision:
    """Add to a decision what its position events do to their accounts.

    Raises `CommandRejected` (`insufficient_funds`) for an intention that would leave a cash-controlled account with
    less than nothing free. A fact is never refused for money.
    """
    appends = with_accounts(decision.appends, streams)
    if is_intention:
        _require_funds(command, appends[len(decision.appends) :], streams)
    return decision if appends is decision.appends else replace(decision, appends=appends)


def with_accounts(decided: tuple[Append, ...], streams: Streams) -> tuple[Append, ...]:
    """Append to what was decided one account event for each event of a position that moves money."""
    positions: dict[UUID, Position | None] = {}
    accounts: dict[UUID, Account] = {}
    bookings: list[Append] = []
    for append in decided:
        if type(append.event) not in _MONEY_EVENTS:
            continue
        stream = append.stream
        before = positions[stream] if stream in positions else streams.state(stream)
        after = positions[stream] = evolve(before, append.event, append.effective_at)
        moved = effect(before, after, brought=getattr(append.event, "brought", ZERO))
        if moved is not None:
            bookings.append(_booking(append, after, moved, accounts, streams))
        bookings += [
            _booking(append, after, effect_of_return(one.brought), accounts, streams, at=one.at, cause=_RETURNED)
            for one in _handed_on(append.event)
            if one.brought
        ]
    return (*decided, *bookings) if bookings else decided


def _handed_on(event: Event) -> tuple[HandedOn, ...]:
    """What a restatement made of parts that went to other accounts: their money counts when they went."""
    restated: Restated | None = getattr(event, "restated", None)
    return restated.handed_on if restated else ()


def _booking(
    append: Append,
    position: Position,
    moved: Effect,
    accounts: dict[UUID, Account],
    streams: Streams,
    *,
    at: datetime | None = None,
    cause: str | None = None,
) -> Append:
    key = AccountKey.of(position)
    stream = account_stream(key)
    before = accounts.get(stream) or account_of(key, streams)
    event = PositionBooked(
        **_identity(key, before.platform or position.platform),
        cause=cause or append.event.TOPIC.partition(".")[2],
        event=StreamRef(stream=append.stream, version=append.version),
        **_balances(before, moved.cash, moved.locked),
        postings=moved.postings,
    )
    effective_at = at or append.effective_at
    accounts[stream] = evolve_account(before, event, effective_at)
    return Append(stream, before.version + 1, event, effective_at)


def _require_funds(command: Command, bookings: Sequence[Append], streams: Streams) -> None:
    for stream in {booking.stream for booking in bookings}:
        before: Account = streams.state(stream) or Account()
        last = [one.event for one in bookings if one.stream == stream and isinstance(one.event, PositionBooked)][-1]
        if before.is_cash_controlled and last.free < 0:
            needed = minus(before.free, last.free)
            raise CommandRejected(Reason.INSUFFICIENT_FUNDS, command, value=needed, held=before.free)


# Commands on accounts


def deposit(command: Deposit, streams: Streams, now: datetime) -> Decision:
    """Pay in."""
    return _moved(command, CashKind.DEPOSIT, command.amount, streams, now)


def withdraw(command: Withdraw, streams: Streams, now: datetime) -> Decision:
    """Pay out what is free."""
    free = account_of(_key(command), streams).free
    if free < command.amount:
        raise CommandRejected(Reason.INSUFFICIENT_FUNDS, command, value=command.amount, held=free)
    return _moved(command, CashKind.WITHDRAWAL, minus(ZERO, command.amount), streams, now)


def set_opening_balance(command: SetOpeningBalance, streams: Streams, now: datetime) -> Decision:
    """Record what was there before the ledger; once, and before any deposit."""
    if account_of(_key(command), streams).is_cash_controlled:
        raise CommandRejected(Reason.BALANCE_ALREADY_SET, command, field="account", value=command.account)
    return _moved(command, CashKind.OPENING_BALANCE, command.amount, streams, now)


def adjust(command: AdjustCash, streams: Streams, now: datetime) -> Decision:
    """Correct the cash by hand."""
    return _moved(command, CashKind.ADJUSTMENT, command.amount, streams, now)


def record_cash(command: RecordCash, streams: Streams, now: datetime) -> Decision:
    """Record what the venue paid or charged beside trades."""
    if not command.kind.is_recorded:
        raise CommandRejected(Reason.CASH_KIND_NOT_RECORDED, command, field="kind", value=command.kind.value)
    return _moved(command, command.kind, command.amount, streams, now)


ACCOUNT_DECIDERS: Final[dict[type[Command], Any]] = {
    Deposit: deposit,
    Withdraw: withdraw,
    SetOpeningBalance: set_opening_balance,
    AdjustCash: adjust,
    RecordCash: record_cash,
}


def _moved(command: Any, kind: CashKind, amount: Decimal, streams: Streams, now: datetime) -> Decision:
    key = _key(command)
    stream, before = account_stream(key), account_of(key, streams)
    subject = Subject(ACCOUNT, stream)
    if not amount and kind is not CashKind.OPENING_BALANCE:
        return Decision(subject=subject) if before.version else _refused_nothing(command)
    event = CashMoved(
        **_identity(key, command.platform or before.platform),
        kind=kind,
        reason=command.reason,
        **_balances(before, amount, ZERO),
        postings=Postings(free=amount, external=minus(ZERO, amount)),
    )
    known: Sequence[datetime] = [before.last_effective_at] if before.last_effective_at else []
    draft = Draft(streams, effective_time(command, now, known))
    draft.append(stream, before.version, event)
    return Decision(tuple(draft.appends), subject=subject)


def _refused_nothing(command: Command) -> Decision:
    raise CommandRejected(Reason.QUANTITY_NOT_POSITIVE, command, field="amount", value=0)


def _key(command: Any) -> AccountKey:
    return AccountKey(command.environment, command.account, command.currency)


def _identity(key: AccountKey, platform: str | None) -> dict[str, Any]:
    return {"environment": key.environment, "account": key.account, "currency": key.currency, "platform": platform}


def _balances(before: Account, cash_change: Decimal, locked_change: Decimal) -> dict[str, Decimal]:
    """Balances after a change, refused when their columns cannot hold them, before anything is appended."""
    cash, locked = plus(before.cash, cash_change), plus(before.locked, locked_change)
    balances = {"change": cash_change, "cash": cash, "locked": locked, "free": minus(cash, locked)}
    for field, value in balances.items():
        require_fits(field, value)
    return balances
