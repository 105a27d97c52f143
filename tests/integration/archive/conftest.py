"""One ledger with a history of the whole domain, and its archive in two segments with a tail behind them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger
from position_ledger.archive import writing
from position_ledger.settings import Settings, load_settings
from tests.support import engine
from tests.support.command_line import CommandLine, in_this_process
from tests.support.database_trading import DatabaseTrading
from tests.support.engine_fixtures import ledger, migrated_template, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ledger", "migrated_template", "settings"]

NO_QUEUE = "redis://127.0.0.1:1/0"
COMMANDS = 100
"""Sent before each export and after the last one."""


@dataclass(frozen=True)
class World:
    """Where everything is. Tests that share it leave it as it is."""

    url: str
    folder: Path
    settings: Settings
    said: tuple[str, str]
    """What each export said."""

    @property
    def run(self) -> CommandLine:
        return in_this_process(self.url)


@pytest.fixture(scope="module")
def world(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("archives") / "archive"
    run = in_this_process(shared_database)
    said = []
    with (
        Ledger.open(database_url=shared_database, redis_url=NO_QUEUE, wait_timeout_s=100) as ledger,
        closing(DatabaseTrading(ledger, shared_database, 7)) as trading,
    ):
        for group_events in (writing.ROW_GROUP_EVENTS, 3):  # a file of one row group, and of many
            trading.run(trading.sent + COMMANDS)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(writing, "ROW_GROUP_EVENTS", group_events)
                answer = run("archive", "export", str(folder))
            assert answer.code == 0, answer
            said.append(answer.out)
        trading.run(trading.sent + COMMANDS // 2)
    of_all = load_settings(database_url=shared_database, redis_url=NO_QUEUE)
    yield World(shared_database, folder, of_all, (said[0], said[1]))
    engine.proven(of_all)  # nothing here changes a row
