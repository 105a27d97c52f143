"""How a crew begins: a process that is killed meanwhile is told as one, a machine that lacks something as that."""

from __future__ import annotations

import errno
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from position_ledger.errors import ConfigurationError
from position_ledger.projection.crews import _begun, projection_of
from position_ledger.settings import Settings


class Failing(ProcessPoolExecutor):
    """A pool of the library that cannot begin a process."""

    def __init__(self, error: OSError) -> None:
        super().__init__(1)
        self.error = error

    def submit(self, *_args: Any, **_more: Any) -> Any:
        raise self.error


def test_what_the_processes_share_is_closed_when_one_was_killed() -> None:
    with Failing(OSError("handle is closed")) as pool, pytest.raises(BrokenProcessPool, match="was killed"):
        _begun(pool, 2)


def test_a_machine_that_can_begin_no_process_is_told_as_that() -> None:
    with Failing(OSError(errno.EAGAIN, "no more processes")) as pool, pytest.raises(OSError, match="no more processes"):
        _begun(pool, 2)


def test_a_table_without_a_definition_is_named() -> None:
    with pytest.raises(ConfigurationError, match="defines no table 'nothing'"):
        projection_of(Settings(projections="projections"), "nothing")
