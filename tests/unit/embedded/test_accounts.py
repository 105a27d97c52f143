"""Who runs the servers: never root, and always somebody that PostgreSQL accepts."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from position_ledger.embedded import accounts
from position_ledger.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = pwd.getpwnam("nobody")


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root looks for another user")
def test_root_finds_a_user_without_rights_for_new_data(tmp_path: Path) -> None:
    assert accounts.server_account(tmp_path / "missing").uid != 0
