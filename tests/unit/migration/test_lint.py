"""squawk over the forward part: lines of the file, rules that the runner takes care of left out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from position_ledger.migration import lint as linting
from position_ledger.migration.lint import LintFailed, lint
from tests.support.migration_files import migration

FILE = migration(
    1,
    "ALTER TABLE desks RENAME COLUMN a TO b;\n\nCREATE INDEX i\n  ON desks (b);",
    rollback="DROP INDEX i; ALTER TABLE desks RENAME COLUMN b TO a;",
)


def test_remarks_stand_at_the_lines_of_the_file() -> None:
    remarks = lint(FILE, 180006)
    assert [(one.rule, one.line) for one in remarks] == [
        ("renaming-column", 11),
        ("require-concurrent-index-creation", 13),
    ]
    assert "concurrently" in remarks[1].advice


def test_only_the_forward_part_is_looked_at_and_by_the_rules_outside_a_transaction() -> None:
    file = migration(
        1,
        "CREATE INDEX CONCURRENTLY i ON desks (b);",
        rollback="DROP INDEX CONCURRENTLY i;",
        transactional=False,
    )
    assert lint(file, 150013) == ()


@pytest.mark.parametrize(
    ("script", "why"),
    [("echo no json", "could not be run"), ("echo '[]'; echo broken >&2; exit 3", "ended with 3: broken")],
)
def test_a_squawk_that_does_not_answer_is_said(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "squawk"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(linting.sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(LintFailed, match=why):
        lint(FILE, 180006)


def test_a_squawk_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linting.sysconfig, "get_path", lambda _name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LintFailed, match="pip install squawk-cli"):
        lint(FILE, 180006)


def test_a_squawk_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: object, **_more: object) -> None:
        raise subprocess.TimeoutExpired("squawk", linting.TIMEOUT_S)

    monkeypatch.setattr(linting.subprocess, "run", never)
    with pytest.raises(LintFailed, match="timed out"):
        lint(FILE, 180006)
