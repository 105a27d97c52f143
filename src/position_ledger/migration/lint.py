"""What squawk says about the forward part of a migration: a static look, beside the trace that sees what happens.

The rules that the runner takes care of are left out: it bounds every wait for a lock, runs each file in one
transaction, and never runs a file twice.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from position_ledger.migration.files import MigrationFile

__all__ = ["TYPE_RULES", "LintFailed", "Remark", "lint"]

TIMEOUT_S: Final = 20.0
_LEFT_TO_OTHERS: Final = frozenset(
    {
        "require-lock-timeout",  # the runner: every wait for a lock is bounded
        "require-statement-timeout",
        "require-timeout-settings",
        "prefer-robust-stmts",  # the runner: a file is applied whole, once, or not at all
        "transaction-nesting",
        "ban-uncommitted-transaction",
        "ban-concurrent-index-creation-in-transaction",  # the trace: the server itself refuses it
        "syntax-error",
    }
)
TYPE_RULES: Final = frozenset(
    {"prefer-timestamp-tz", "prefer-text-field", "prefer-identity", "prefer-bigint-over-int", "ban-char-field"}
    | {"prefer-bigint-over-smallint"}
)
"""About the types of columns: true wherever the statement runs, on a shadow too."""


class LintFailed(Exception):
    """squawk is not there or did not answer; says why."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One remark: squawk's rule, the line of the file (from 1), its sentence and its advice ("" for none)."""

    rule: str
    line: int
    message: str
    advice: str


def lint(file: MigrationFile, server_version: int) -> tuple[Remark, ...]:
    """Run squawk over the forward part. ``server_version`` is libpq's number, 180000.

    Raises:
        LintFailed: it could not be run.
    """
    command = [
        _program(),
        "--reporter=json",
        f"--pg-version={server_version // 10000}.{server_version % 10000}",
        f"--stdin-filepath={file.filename}",
        *(["--assume-in-transaction"] if file.is_transactional else ["--no-assume-in-transaction"]),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - our own program and arguments
            command, input=_padded(file), capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd="/"
        )
        found = json.loads(done.stdout or "[]")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise LintFailed(f"squawk could not be run: {error}") from error
    if done.returncode not in {0, 1} or not isinstance(found, list):
        raise LintFailed(f"squawk ended with {done.returncode}: {done.stderr.strip()[:200]}")
    return tuple(
        Remark(one["rule_name"], int(one["line"]) + 1, " ".join(one["message"].split()), one.get("help") or "")
        for one in found
        if one["rule_name"] not in _LEFT_TO_OTHERS
    )


def _program() -> str:
    """The program that came with the package: beside this interpreter, else on the path."""
    beside = Path(sysconfig.get_path("scripts")) / "squawk"
    found = str(beside) if beside.is_file() else shutil.which("squawk")
    if found is None:
        raise LintFailed("squawk is not installed: pip install squawk-cli")
    return found


def _padded(file: MigrationFile) -> str:
    """The forward statements, each on the line on which it stands in the file."""
    text = ""
    for statement in file.forward.statements:
        text += "\n" * max(0, statement.line - 1 - text.count("\n")) + statement.text + ";"
    return text
