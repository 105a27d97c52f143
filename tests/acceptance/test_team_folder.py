"""A folder as init makes it, used as a team uses it: by workers, by processes of a rebuild, from the folder itself."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger import Ledger, MarkPosition, OpenPosition
from position_ledger.embedded.process import wait_until
from tests.support.command_line import in_this_process, on
from tests.support.team_folder import Desk, forget_folders

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 60.0


def notes(url: str) -> list[object]:
    """The team's column in every version."""
    with psycopg.connect(url) as connection:
        return [note for (note,) in connection.execute("SELECT p.notes FROM ledger.positions AS p ORDER BY p.id")]


@pytest.mark.uncounted
@pytest.mark.slow
@pytest.mark.chaos
def test_workers_and_rebuilds_use_the_folder_s_definitions(
    ledger_database: str, ledger_redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given workers, projections and a column of our own in the folder, when started there, then its .env is enough.

    The rebuild loads in processes of its own, and dramatiq imports the broker in its own: both know the folder by its path.
    """
    desk = Desk(tmp_path / "desk", in_this_process(ledger_database))
    with Ledger.open(database_url=ledger_database, redis_url=ledger_redis_url) as ledger:
        opened = ledger.execute(
            OpenPosition(
                account="main", market="M", side="YES", quantity=10, entry_price="0.4", environment="paper",
                metadata={"note": "hedge"},
            )
        )  # fmt: skip
        ledger.catch_up(60)
    monkeypatch.chdir(desk.folder)
    run = in_this_process(ledger_database)
    assert run("migrate", "new", "notes", "--template", "add-column", "--table", "positions", "--column", "notes",
               "--type", "text").code == 0  # fmt: skip
    desk.edit("projections/positions.py", "    restated_realized: Decimal\n",
              "    restated_realized: Decimal\n    notes: str | None\n")  # fmt: skip
    desk.edit("projections/positions.py", "        position_metadata=body.metadata,\n",
              '        position_metadata=body.metadata,\n        notes=(body.metadata or {}).get("note"),\n')  # fmt: skip
    desk.edit("workers/broker.py", "    worker = this_process()\n",
              f'    worker = this_process()\n    open("{tmp_path}/made", "w").close()\n')  # fmt: skip
    forget_folders()
    up = run("migrate", "up")
    assert up.code == 0, up
    rebuilt = run("rebuild-projection", "positions", "--processes", "2")
    assert rebuilt.code == 0, rebuilt

    process = on(ledger_database, ledger_redis_url).start("worker", "--processes", "1")
    try:
        with Ledger.open(database_url=ledger_database, redis_url=ledger_redis_url) as ledger:
            ledger.execute(MarkPosition(position_id=opened.position_id, price="0.5"))
        assert wait_until(lambda: notes(ledger_database) == ["hedge", "hedge"], LIMIT_S)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
    assert (tmp_path / "made").exists()
