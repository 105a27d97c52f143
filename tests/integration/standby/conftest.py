"""A primary with a history of its own and its standby, for all tests of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger
from position_ledger.embedded.temporary import TemporaryPostgres
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.standby import Pair, settings_of, standby_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[TemporaryPostgres]:
    """The primary; only positions are projected."""
    with TemporaryPostgres(is_durable=False) as primary:
        settings = settings_of(primary)
        engine.migrate(settings)
        with Ledger(settings, engine.reached(settings)) as ledger:
            Traffic(ledger, 7).run(80)
        engine.project_all(settings)
        yield primary


@pytest.fixture(scope="module")
def pair(server: TemporaryPostgres) -> Iterator[Pair]:
    """It and its standby."""
    with standby_of(server) as standby:
        yield Pair(server, standby)
