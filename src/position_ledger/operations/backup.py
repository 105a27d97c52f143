"""Is there a recent backup? Asked before a migration that could need one (S6)."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import psycopg

from position_ledger.embedded.binaries import reachable_binaries
from position_ledger.errors import MigrationError
from position_ledger.migration.runner import Migrator
from position_ledger.operations.common import Tell, owner
from position_ledger.settings import Settings
from position_ledger.setup import Reached

COMMAND_LIMIT_S = 60.0
CLOCK_SKEW_MAX = timedelta(minutes=5)
ARCHIVER = """
SELECT current_setting('archive_mode') <> 'off', a.last_archived_time, a.last_failed_time FROM pg_stat_archiver AS a
"""


@dataclass(frozen=True, slots=True)
class BackupState:
    """What is known of the last backup; ``at`` is in UTC, None where no time is known; ``message`` is a clause."""

    source: Literal["command", "archiver", "none"]
    is_recent: bool
    at: datetime | None
    message: str


def backup_state(settings: Settings, connection: psycopg.Connection[Any]) -> BackupState:
    """What the backup command says, or else when the server archived its log last.

    A command that exits with 0 and prints no time is believed: it may look for more than an age.
    """
    if settings.backup_command is not None:
        return _of_command(settings.backup_command, settings.backup_max_age_h)
    return _of_archiver(settings, connection)


def look_for_backup(
    settings: Settings, reached: Reached, migrator: Migrator, target: int | None, tell: Tell
) -> tuple[str, ...]:
    """Say before `migrate up` what is known of the last backup; nothing if there is nothing to apply or to lose yet.

    Raises:
        MigrationError: there is no recent backup and the policy is refuse; nothing was changed.
    """
    if settings.backup_policy == "off" or not _is_at_stake(migrator, target):
        return ()
    with owner(settings, reached) as connection:
        state = backup_state(settings, connection)
    if state.is_recent:
        return _told(tell, f"backup: {state.message}")
    advice = _advice(settings, reached)
    if settings.backup_policy == "refuse":
        msg = (
            f"{state.message}; nothing was changed; {advice}, then run `position-ledger migrate up` again, "
            "or set POSITION_LEDGER_BACKUP_POLICY=warn"
        )
        raise MigrationError(msg)
    return _told(tell, f"warning: {state.message}; {advice}")


def _is_at_stake(migrator: Migrator, target: int | None) -> bool:
    """Whether there are migrations to apply, and a database that has been in use: a fresh one has nothing to lose."""
    status = migrator.status()
    is_used = any(row.applied is not None for row in status.rows)
    return is_used and any(target is None or row.number <= target for row in status.pending)


def _told(tell: Tell, message: str) -> tuple[str, ...]:
    tell(message)
    return (message,)


def _advice(settings: Settings, reached: Reached) -> str:
    """How to make a backup, or to have the one there is found."""
    if settings.database_url is None:
        program = reachable_binaries().postgres_bin / "pg_dump"
        return (
            f"back the embedded database up with {program} --format=custom --file=ledger.dump '{reached.database_url}'"
        )
    return "make one, and name what finds it with POSITION_LEDGER_BACKUP_COMMAND"


def _of_command(command: str, age_max_h: float) -> BackupState:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command
            shlex.split(command), capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False
        )
    except (OSError, ValueError) as error:
        return _missing("command", f"the backup command cannot be run ({_line(str(error))})")
    except subprocess.TimeoutExpired:
        return _missing("command", f"the backup command did not answer within {COMMAND_LIMIT_S:g} s")
    said = _line(done.stdout)
    if done.returncode != 0:
        return _missing(
            "command", f"the backup command ended with {done.returncode} ({_line(done.stderr) or 'no message'})"
        )
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        return BackupState("command", is_recent=True, at=None, message="the backup command says that there is one")
    if at.tzinfo is None:
        return _missing("command", f"the backup command gives the time {said}, which has no offset from UTC")
    return _of_age("command", at.astimezone(UTC), age_max_h, "the last backup is of")


def _of_archiver(settings: Settings, connection: psycopg.Connection[Any]) -> BackupState:
    """The server's archive of its log; a base backup that it needs besides is not looked for."""
    row = connection.execute(ARCHIVER).fetchone()
    is_on, archived_at, failed_at = row or (False, None, None)
    if not is_on:
        return _missing("none", "no backup is known: no backup command is set and the server archives nothing")
    if archived_at is None:
        return _missing("archiver", "the server has archived nothing of its log yet")
    if failed_at is not None and failed_at > archived_at:
        return _missing(
            "archiver", f"the server fails to archive its log since {failed_at:%Y-%m-%d %H:%M} UTC", archived_at
        )
    return _of_age("archiver", archived_at.astimezone(UTC), settings.backup_max_age_h, "the server archived its log at")


def _of_age(source: Literal["command", "archiver"], at: datetime, age_max_h: float, words: str) -> BackupState:
    age = datetime.now(UTC) - at
    said = f"{words} {at:%Y-%m-%d %H:%M} UTC"
    if age < -CLOCK_SKEW_MAX:
        return _missing(source, f"{said}, which has not come yet", at)
    age_h = max(age, timedelta()) / timedelta(hours=1)
    if age_h > age_max_h:
        return _missing(source, f"{said}, {age_h:.0f} h ago, more than {age_max_h:g} h", at)
    return BackupState(source, is_recent=True, at=at, message=f"{said}, {age_h:.1f} h ago")


def _missing(source: Literal["command", "archiver", "none"], message: str, at: datetime | None = None) -> BackupState:
    return BackupState(source, is_recent=False, at=at, message=message)


def _line(text: str) -> str:
    """The first line that says something."""
    return next((" ".join(line.split())[:200] for line in text.splitlines() if line.strip()), "")
