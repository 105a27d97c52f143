"""What the command line says without a database: its version, and the result of a rebuild in words."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import click
import pytest

from position_ledger import supervised
from position_ledger.cli.app import app
from position_ledger.cli.rebuild import _lines, _steered
from position_ledger.cli.running import run
from position_ledger.cli.status import _rebuild
from position_ledger.errors import RebuildCancelled
from position_ledger.operations import Steered
from position_ledger.projection.differences import Difference
from position_ledger.projection.rebuild import RebuildReport
from position_ledger.projection.rebuilds import RebuildStatus

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


T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
GOING = RebuildStatus(
    table="positions",
    generation_id=3,
    state="loading",
    wanted="run",
    processes=2,
    throttle_per_s=None,
    yields_to=None,
    events_done=1_000,
    events_total=5_000,
    events_per_s=250.4,
    eta=T0,
    started_at=T0,
    updated_at=T0,
    finished_at=None,
    problem=None,
    is_kept=True,
    is_running=True,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "is loading, 1,000 of 5,000 events, 250 events/s, ends about 12:00:00 UTC"),
        ({"throttle_per_s": 300.0, "eta": None}, "250 events/s, at most 300 events/s"),
        ({"yields_to": "table edges is 2.0 s behind"}, "stands back because table edges is 2.0 s behind"),
        ({"wanted": "pause", "eta": None}, "is paused while loading, .*: rebuild-projection positions --resume"),
        (
            {"is_running": False},
            "was interrupted while loading, .*: rebuild-projection positions goes on, --cancel drops",
        ),
        ({"state": "built", "finished_at": T0}, "is built and not swapped: rebuild-projection positions swaps it in"),
        (
            {"state": "failed", "finished_at": T0, "problem": "no quiet moment"},
            "failed: no quiet moment; rebuild-projection positions goes on with what is built",
        ),
    ],
)
def test_a_rebuild_that_is_not_over_is_in_the_status(changes: dict[str, Any], words: str) -> None:
    assert re.match(f"rebuild of positions .generation 3. .*{words}", str(_rebuild(replace(GOING, **changes))))


@pytest.mark.parametrize(("state", "is_kept"), [("done", True), ("cancelled", False), ("failed", False)])
def test_a_rebuild_that_has_left_nothing_is_no_news(state: str, *, is_kept: bool) -> None:
    assert _rebuild(replace(GOING, state=state, is_kept=is_kept, finished_at=T0)) is None


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (Steered("positions", "pause", 3), "positions: generation 3 waits, --resume lets it go on"),
        (Steered("positions", "run", 3), "positions: generation 3 goes on"),
        (Steered("positions", "cancel", 3), "positions: generation 3 is cancelled, nothing of it is left"),
        (Steered("positions", "cancel", None), "positions: no rebuild is running or half built"),
    ],
)
def test_what_steering_did_is_told_in_one_line(done: Steered, words: str) -> None:
    assert _steered(done) == words


@pytest.mark.parametrize("option", [["--dry-run"], ["--throttle", "10"], ["--rollback"], ["--workers", "2"], ["--all"]])
def test_steering_goes_with_no_other_option(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "position-ledger", ["rebuild-projection", "positions", "--pause", *option]) == 2
    assert "--pause, --resume, --cancel and --drop-retired are for one table" in capsys.readouterr().err


def test_a_command_that_was_cancelled_has_not_done_what_it_was_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def cancelled() -> None:
        raise RebuildCancelled("the rebuild of positions was cancelled")

    assert run(cancelled, "rebuild-projection", []) == 1
    assert capsys.readouterr().err == "rebuild-projection: the rebuild of positions was cancelled\n"


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
