"""The servers of a run, and a fresh, migrated ledger for each measurement."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger import Ledger
from position_ledger.embedded.temporary import TemporaryPostgres, TemporaryValkey
from position_ledger.operations import migrate_up
from position_ledger.settings import Settings, load_settings
from position_ledger.setup import Reached


@dataclass(frozen=True, slots=True)
class Arena:
    """One ledger: where its database and queue are."""

    database_url: str
    redis_url: str

    @property
    def settings(self) -> Settings:
        """The settings of everything that works here."""
        return load_settings(database_url=self.database_url, redis_url=self.redis_url)

    @property
    def reached(self) -> Reached:
        """The same, as operations want it."""
        return Reached(self.database_url, self.redis_url, None)

    def ledger(self) -> Ledger:
        """Open the ledger."""
        return Ledger.open(database_url=self.database_url, redis_url=self.redis_url)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """One plain autocommit connection of the owner, in the schema of the ledger."""
        connection = psycopg.connect(self.database_url, autocommit=True)
        connection.execute(
            SQL("SET search_path = {}, pg_catalog, pg_temp").format(Identifier(self.settings.ledger_schema))
        )
        return connection


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that this run started; its data waits for the disk as in production."""

    postgres: TemporaryPostgres
    valkey: TemporaryValkey

    @contextmanager
    def arena(self) -> Iterator[Arena]:
        """A fresh, migrated ledger in a database of its own, dropped at the end."""
        with self.database() as url:
            arena = Arena(url, self.valkey.redis_url)
            migrate_up(arena.settings, arena.reached, None, lambda _message: None)
            yield arena

    @contextmanager
    def database(self) -> Iterator[str]:
        """The address of an empty database, dropped at the end."""
        name = f"bench_{secrets.token_hex(4)}"
        self._execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        try:
            parts = urlsplit(self.postgres.database_url)
            yield f"{parts.scheme}://{parts.netloc}/{quote(name)}" + (f"?{parts.query}" if parts.query else "")
        finally:
            self._execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))

    def _execute(self, statement: psycopg.sql.Composed) -> None:
        with closing(psycopg.connect(self.postgres.database_url, autocommit=True)) as connection:
            connection.execute(statement)


@contextmanager
def servers() -> Iterator[Servers]:
    """Start the servers; they end with the block."""
    with TemporaryPostgres(is_durable=True) as postgres, TemporaryValkey() as valkey:
        yield Servers(postgres, valkey)
