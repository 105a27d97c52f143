"""A fresh, migrated database for each test, cloned from a template, on the server that the environment names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from position_ledger.database import connect
from position_ledger.projection.definition import load_projections
from position_ledger.projection.generations import ensure_first
from position_ledger.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SERVER = os.environ.get("POSITION_LEDGER_TEST_SERVER", "")


def _database(name: str, template: str) -> str:
    with psycopg.connect(f"{SERVER} dbname=postgres", autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return f"{SERVER} dbname={name}"


def _drop(name: str) -> None:
    with psycopg.connect(f"{SERVER} dbname=postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def template() -> Iterator[str]:
    if not SERVER:
        pytest.skip("POSITION_LEDGER_TEST_SERVER names no server")
    name = f"importer_template_{uuid4().hex[:8]}"
    url = _database(name, "template1")
    settings = Settings(database_url=url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ledger")
        for file in sorted((ROOT / "migrations").glob("0*.sql")):
            forward = file.read_text().partition("-- forward")[2].partition("-- verify")[0]
            with connection.transaction():
                connection.execute("SET LOCAL search_path = ledger, pg_catalog")
                connection.execute(forward.encode())
    with connect(url, settings, as_app=False) as connection:
        ensure_first(connection, load_projections(settings.projections), schema="ledger", release="test")
    yield name
    _drop(name)


@pytest.fixture
def ledger_url(template: str) -> Iterator[str]:
    name = f"importer_test_{uuid4().hex[:8]}"
    yield _database(name, template)
    _drop(name)
