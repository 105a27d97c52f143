"""What the command line says without a database: its version, and the result of a rebuild in words."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from position_ledger import supervised
from position_ledger.cli.app import app
from position_ledger.cli.rebuild import _lines
from position_ledger.cli.running import run
from position_ledger.projection.differences import Difference
from position_ledger.projection.rebuild import RebuildReport

if TYPE_CHECKING:
    import pytest

DIFFERENCE = Difference("positions", "POS-1", 3, "quantity", "10", "11")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "position-ledger", ["--version"]) == 0
    assert capsys.readouterr().out == f"position-ledger {version('position-ledger')}\n"


def test_a_wrong_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "position-ledger", ["positons"]) == 2
    assert "did you mean positions" in capsys.readouterr().err


def test_every_command_of_the_table_loads() -> None:
    assert all(app.command_named(name).help for name in app.table)


def test_a_rebuild_is_told_with_its_figures() -> None:
    report = RebuildReport("positions", 2, 1_000, 900, swapped=True, swap_attempts=2, swap_lock_ms=7.6)
    said = "\n".join(_lines(report, rollback=False))
    assert "1,000 events, 900 versions" in said
    assert "at most 8 ms (try 2)" in said


def test_a_rebuild_that_was_not_swapped_names_what_differs() -> None:
    said = list(_lines(RebuildReport("positions", 2, differences=[DIFFERENCE]), rollback=False))
    assert f"  {DIFFERENCE}" in said
    assert "POS-1, row 3: quantity is 11, the log says 10" in said[1]
    assert said[-1].startswith("not swapped")


def test_a_rollback_is_told_in_one_line() -> None:
    report = RebuildReport("positions", 1, swapped=True, swap_lock_ms=3.2)
    assert list(_lines(report, rollback=True)) == ["positions: generation 1 is live again, swapped in 3 ms"]


def test_a_worker_whose_parent_is_gone_does_not_begin() -> None:
    nobody = "1"
    done = subprocess.run(
        [sys.executable, "-P", supervised.__file__, nobody], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "the parent ended before the worker began" in done.stderr
