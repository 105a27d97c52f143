"""`position-ledger init`: a folder that a team edits, made whole or not at all, and brought to a new release."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from position_ledger.cli.app import app
from position_ledger.cli.running import run
from position_ledger.errors import ConfigurationError, MigrationError
from position_ledger.migration import load_folder
from position_ledger.migration.sums import check_sum, write_sum
from position_ledger.scaffolding import making, upgrade_folder
from tests.support.migration_files import migration_text

ROOT = Path(__file__).parents[2]


def release(folder: str, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((ROOT / folder).glob(pattern))}


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def init(*arguments: str | Path) -> int:
    return run(app, "position-ledger", ["init", *map(str, arguments)])


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder as init makes it."""
    assert init(tmp_path / "desk") == 0
    capsys.readouterr()
    return tmp_path / "desk"


def older(desk: Path, *, without: int) -> list[str]:
    """Make the folder one of an older release, that had so many migrations fewer; answers their names."""
    gone = sorted((desk / "migrations").glob("*.sql"))[-without:]
    for file in gone:
        file.unlink()
    write_sum(desk / "migrations")
    return [file.name for file in gone]


def add_own(desk: Path, name: str = "own") -> str:
    """A migration of the team under the next number."""
    number = load_folder(desk / "migrations")[-1].number + 1
    path = desk / "migrations" / f"{number:03}_{name}.sql"
    path.write_text(migration_text(number, "CREATE TABLE own (id bigint);", rollback="DROP TABLE own;"))
    write_sum(desk / "migrations")
    return path.name


def test_a_new_folder_has_what_the_release_has_and_a_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path / "a" / "desk") == 0
    desk = tmp_path / "a" / "desk"

    for folder, pattern in (("migrations", "*.sql"), ("projections", "*.py"), ("workers", "*.py")):
        assert {path.name: path.read_bytes() for path in sorted((desk / folder).glob(pattern))} == release(
            folder, pattern
        )
    check_sum(load_folder(desk / "migrations"), (desk / "migrations" / "migrations.sum").read_text())
    assert files_of(desk) >= {".env", "README.md", "check.sh", "pytest.ini", "tests/test_replay.py"}
    assert os.access(desk / "check.sh", os.X_OK)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["desk"]
    said = capsys.readouterr().out
    assert f"with {len(files_of(desk))} files" in said
    assert f"next: cd {desk} && position-ledger migrate up" in said


def test_an_empty_folder_and_a_fresh_repository_are_taken(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert init(tmp_path) == 0
    assert (tmp_path / "migrations" / "001_events.sql").is_file()


def test_a_folder_with_something_in_it_is_refused_and_left_alone(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "projections" / "positions.py").write_text("ours")
    before = files_of(desk)

    assert init(desk) == 2
    refused = capsys.readouterr().err
    assert "is not empty (it has .env, .gitignore, README.md and" in refused
    assert f"position-ledger init {desk} --upgrade" in refused
    assert init(desk / "README.md") == 2
    assert files_of(desk) == before
    assert (desk / "projections" / "positions.py").read_text() == "ours"


@pytest.mark.parametrize("exists", [False, True])
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exists: bool) -> None:
    """Given a file that cannot be written in the middle, when made, then the folder is as it was before."""
    desk = tmp_path / "desk"
    if exists:
        desk.mkdir()
    shipped = list(making.new_files())
    broken = [*shipped[:5], (f"{'x' * 300}", b"a name too long for any file system"), *shipped[5:]]
    monkeypatch.setattr(making, "new_files", lambda: iter(broken))

    with pytest.raises(OSError, match="too long"):
        making.make_folder(desk)

    assert desk.exists() == exists
    assert files_of(tmp_path) == set()


# Upgrading


def test_new_migrations_come_under_the_next_free_numbers(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a folder of an older release with a migration of its own, when upgraded, then both follow each other."""
    first, second = older(desk, without=2)
    own = add_own(desk)
    count = len(load_folder(desk / "migrations"))

    assert init(desk, "--upgrade") == 0

    said = capsys.readouterr().out
    names = [file.filename for file in load_folder(desk / "migrations")]
    expected = [f"{count + 1:03}_{first[4:]}", f"{count + 2:03}_{second[4:]}"]
    assert names[-3:] == [own, *expected]
    check_sum(load_folder(desk / "migrations"), (desk / "migrations" / "migrations.sum").read_text())
    assert f"added migrations/{expected[0]} (the release's {first})" in said
    assert "migrate plan" in said
    only_line = {
        (one, other)
        for one, other in zip(
            (ROOT / "migrations" / first).read_text().splitlines(),
            (desk / "migrations" / expected[0]).read_text().splitlines(),
            strict=True,
        )
        if one != other
    }
    assert only_line == {(f"-- Migration: {first[:3]}", f"-- Migration: {count + 1:03}")}


def test_an_upgrade_a_second_time_changes_nothing(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older(desk, without=1)
    add_own(desk)
    init(desk, "--upgrade")
    before = {path: (desk / path).read_bytes() for path in files_of(desk)}
    capsys.readouterr()

    assert init(desk, "--upgrade") == 0

    assert "has every migration of position-ledger" in capsys.readouterr().out
    assert {path: (desk / path).read_bytes() for path in files_of(desk)} == before


def test_what_the_team_edited_is_named_and_never_overwritten(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    positions, actors = desk / "projections" / "positions.py", desk / "workers" / "actors.py"
    positions.write_text(positions.read_text() + "\nOURS = 1\n")
    actors.unlink()
    (desk / "projections" / "own.py").write_text("OURS = 1\n")
    before = positions.read_bytes()

    assert init(desk, "--upgrade") == 0

    said = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("projections/positions.py differs from the release: compare with diff -u") for line in said
    )
    assert any(line.startswith("workers/actors.py is in the release and not here") for line in said)
    assert not any("own.py" in line for line in said)
    assert len(said) == 3
    assert positions.read_bytes() == before
    assert not actors.exists()


def test_a_migration_that_has_a_shipped_name_and_other_content_is_named(desk: Path) -> None:
    """Nobody may believe that a release's migration is there because the team has one of its name."""
    (gone,) = older(desk, without=1)
    own = add_own(desk, gone[4:].removesuffix(".sql"))

    upgrade = upgrade_folder(desk)

    assert upgrade.added == ()
    assert [(one.path, one.reason) for one in upgrade.differing] == [
        (f"migrations/{own}", f"has the name of the release's {gone} and other content")
    ]


def test_a_folder_that_was_not_made_by_init_cannot_be_upgraded(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no folder migrations: run position-ledger init"):
        upgrade_folder(tmp_path)


def test_an_upgrade_never_hides_an_edited_or_unsummed_migration(desk: Path) -> None:
    older(desk, without=1)
    own = desk / "migrations" / add_own(desk)
    own.write_text(own.read_text().replace("bigint", "integer"))
    before = files_of(desk)

    with pytest.raises(MigrationError, match=f"does not fit {own.name}"):
        upgrade_folder(desk)
    (desk / "migrations" / "migrations.sum").unlink()
    with pytest.raises(MigrationError, match="restore it"):
        upgrade_folder(desk)
    assert files_of(desk) == before - {"migrations/migrations.sum"}
