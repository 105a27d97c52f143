"""A position and its book may be read at different moments: what another process did in between is never damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger import ClosePosition, CommandRejected, Ledger, OpenPosition, Reason, RecordFill
from position_ledger.domain.book import BookKey, book_stream
from position_ledger.domain.vocabulary import Environment

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = {"account": "a", "market": "M", "environment": "paper", "side": "YES"}
BOOK = book_stream(BookKey(Environment("paper"), "a", "M"))


@pytest.fixture
def other(ledger: Ledger) -> Iterator[Ledger]:
    """The same ledger as another process has it: with a memory of its own."""
    with Ledger(ledger.settings, ledger._reached) as another:
        yield another


def opened(ledger: Ledger) -> str:
    return str(ledger.execute(OpenPosition(**KEY, quantity=5, entry_price="0.4")).position_id)


def forget(ledger: Ledger, *, keep_book: bool) -> None:
    """Drop the book from memory, or everything but the book."""
    loaded = ledger._executor._cache._loaded
    for stream in [stream for stream in loaded if (stream == BOOK) is not keep_book]:
        del loaded[stream]


def test_a_close_decided_on_an_old_position_and_a_new_book_is_refused_in_words(ledger: Ledger, other: Ledger) -> None:
    position_id = opened(ledger)
    forget(ledger, keep_book=False)
    other.execute(ClosePosition(position_id=position_id, price="0.5", reason="manual"))

    with pytest.raises(CommandRejected) as refusal:
        ledger.execute(ClosePosition(position_id=position_id, price="0.5", reason="manual"))

    assert refusal.value.reason is Reason.POSITION_NOT_OPEN


def test_a_fill_decided_on_an_old_book_and_a_new_position_goes_to_what_is_open(ledger: Ledger, other: Ledger) -> None:
    first, second = opened(ledger), opened(ledger)
    other.execute(ClosePosition(position_id=first, price="0.5", reason="manual"))
    forget(ledger, keep_book=True)

    sold = ledger.execute(RecordFill(**KEY, action="sell", quantity=5, price="0.6"))

    assert sold.positions == (second,)
