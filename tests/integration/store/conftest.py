from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from position_ledger.database import connect
from position_ledger.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg


@pytest.fixture
def app(ledger_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection with the rights of trading code."""
    with closing(connect(ledger_database, Settings(), as_app=True)) as connection:
        yield connection


@pytest.fixture
def owner(ledger_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the database's owner, in autocommit."""
    with closing(connect(ledger_database, Settings(), as_app=False)) as connection:
        yield connection


@pytest.fixture
def stream() -> UUID:
    """A stream that has not begun."""
    return uuid4()
