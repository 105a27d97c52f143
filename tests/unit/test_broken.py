"""How often a reader whose connections break tries again, and which errors are none of the connection."""

from __future__ import annotations

import psycopg
import pytest

from position_ledger.errors import DatabaseUnavailable
from position_ledger.execution import broken
from position_ledger.execution.broken import READS_AT_ONCE, READS_WAITING, BrokenReads, append_surely


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which are not waited for."""
    found: list[float] = []
    monkeypatch.setattr(broken.time, "sleep", found.append)
    return found


@pytest.mark.parametrize("error", [psycopg.OperationalError("gone"), psycopg.errors.AdminShutdown("57P01")])
def test_a_reader_tries_again_at_once_then_waits_then_gives_up(waits: list[float], error: Exception) -> None:
    """Given connections that break, then dead ones of a pool cost no time, a server that is away is waited for."""
    reads = BrokenReads()
    for _ in range(READS_AT_ONCE):
        reads.again(error)
    assert waits == []
    for _ in range(READS_WAITING):
        reads.again(error)
    assert len(waits) == READS_WAITING
    with pytest.raises(type(error)):
        reads.again(error)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_answer_of_the_server_is_not_asked_for_again(waits: list[float], *, wrapped: bool) -> None:
    """Given an error with a code of its own, when it is met in a read or an append, then it is the caller's."""
    error: Exception = psycopg.errors.DiskFull("53100")
    if wrapped:
        error, error.__cause__ = DatabaseUnavailable("the disk is full"), error
    asked = 0

    def append(*_arguments: object) -> list[object]:
        nonlocal asked
        asked += 1
        raise error

    with pytest.raises(type(error)):
        BrokenReads().again(error)
    with pytest.raises(type(error)):
        append_surely(append, lambda: pytest.fail("nothing to look up"), [], [], [])  # type: ignore[arg-type]
    assert (asked, waits) == (1, [])
