"""Work in a thread: it goes on after failures that are known, and ends when it is told to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg

from position_ledger.background import Background

if TYPE_CHECKING:
    import pytest

LIMIT_S = 10


def test_it_begins_again_after_a_failure_and_stops(caplog: pytest.LogCaptureFixture) -> None:
    """Given work that fails twice, when it is started, then it is logged, tried again, and ends with stop."""
    begun: list[int] = []
    is_at_work = threading.Event()

    def work(stopped: threading.Event) -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            raise psycopg.OperationalError("the server went away")
        is_at_work.set()
        assert stopped.wait(LIMIT_S)

    background = Background("sweeping", "the sweep", work, retry_first_s=0.01)
    background.start()
    background.start()
    assert is_at_work.wait(LIMIT_S)
    seen = [background.is_running]
    background.stop(LIMIT_S)
    assert [*seen, background.is_running] == [True, False]
    assert begun == [0, 1, 2]
    said = [record.getMessage() for record in caplog.records if record.name == "position_ledger.sweeping"]
    assert said == [
        "the sweep stopped: OperationalError: the server went away; trying again in 0.01 s",
        "the sweep stopped: OperationalError: the server went away; trying again in 0.02 s",
    ]


def test_one_that_never_began_stops() -> None:
    background = Background("sweeping", "the sweep", lambda _stopped: None, retry_first_s=1)
    background.stop()
    assert not background.is_running
