"""The logs of the embedded servers stay small, under a server that goes on writing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from position_ledger.embedded.process import LOG_BYTES_MAX, cut_log, log_tail, open_log

if TYPE_CHECKING:
    from pathlib import Path


def test_a_log_is_cut_under_its_writer(tmp_path: Path) -> None:
    """Given a writer with a log past its limit, when cut, then the old lines are beside it and new ones follow."""
    log = tmp_path / "postgres.log"
    with open_log(log) as fd:
        os.write(fd, b"old\n")
        cut_log(log)
        assert log.read_bytes() == b"old\n"
        os.truncate(log, LOG_BYTES_MAX + 1)

        cut_log(log)
        os.write(fd, b"one\n\n  two\n")

    assert log.read_bytes() == b"one\n\n  two\n"
    assert (tmp_path / "postgres.log.1").stat().st_size == LOG_BYTES_MAX + 1
    assert log_tail(log) == "one | two"
    assert log_tail(tmp_path / "missing.log") == "the log is empty"
