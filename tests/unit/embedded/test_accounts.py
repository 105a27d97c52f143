"""Who runs the servers: never root, and always somebody that PostgreSQL accepts."""

from __future__ import annotations

import os
import pwd
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from position_ledger.embedded import accounts
from position_ledger.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = pwd.getpwnam("nobody")
SLOW_USERADD = """#!/bin/sh
mkdir {0}/at-work || echo overlap >> {0}/log
sleep 0.05
rmdir {0}/at-work
echo done >> {0}/log
"""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root looks for another user")


def test_an_account_is_found_by_name_unless_it_is_root() -> None:
    found = accounts._account_by_name("nobody")
    assert found == accounts.Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    assert accounts._account_by_name("root") is None
    assert accounts._account_by_name("no-such-user") is None


def test_an_id_without_a_name_is_refused_in_words() -> None:
    with pytest.raises(ConfigurationError, match="987654321 has no name"):
        accounts._account_by_id(987_654_321)


def test_creating_by_a_program_that_is_not_there_or_does_nothing_gives_no_new_account() -> None:
    before = accounts._account_by_name(accounts.SYSTEM_USER)
    assert accounts._create(("no-such-program",)) is None
    assert accounts._create(("true",)) == before


def test_whoever_owns_the_data_runs_the_servers(tmp_path: Path) -> None:
    assert accounts.server_account(tmp_path).uid == tmp_path.stat().st_uid
    if os.geteuid() != 0:
        assert accounts.server_account(tmp_path / "missing").uid == os.geteuid()


@only_root
def test_root_finds_a_user_without_rights_for_new_data(tmp_path: Path) -> None:
    assert accounts.server_account(tmp_path / "missing").uid != 0


@only_root
def test_processes_that_begin_at_once_create_the_user_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no such user, when several look for it at once, then no two programs that create it run side by side."""
    program = tmp_path / "useradd"
    program.write_text(SLOW_USERADD.format(tmp_path))
    program.chmod(0o755)
    monkeypatch.setattr(accounts, "SYSTEM_USER", "no-such-user")
    monkeypatch.setattr(accounts, "_CREATE_COMMANDS", ((program,),))

    with ThreadPoolExecutor(4) as at_once:
        list(at_once.map(accounts.server_account, [tmp_path / "missing"] * 4))

    assert (tmp_path / "log").read_text().split() == ["done"] * 4
