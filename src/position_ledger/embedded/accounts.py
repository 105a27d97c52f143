"""Which system user runs the servers: the user of the ledger, or for root one without rights."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from position_ledger.embedded import locks
from position_ledger.embedded.layout import ROOT_FOLDER, make_root_folder, runs_as_root
from position_ledger.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM_USER = "position-ledger"
FALLBACK_USERS = ("postgres", "nobody")
CREATE_LIMIT_S = 20.0
CREATE_LOCK = ROOT_FOLDER / "account.lock"
"""Held by whoever looks for the system user and creates it: of two useradd at once, one undoes what the other has shown."""

_CREATE_COMMANDS = (
    (
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        ROOT_FOLDER,
        "--shell",
        "/usr/sbin/nologin",
    ),
    ("useradd", "--system", "--gid", SYSTEM_USER, "--no-create-home", "--home-dir", ROOT_FOLDER),
    ("adduser", "-S", "-D", "-H", "-h", ROOT_FOLDER, "-s", "/sbin/nologin"),  # busybox
)


@dataclass(frozen=True, slots=True)
class Account:
    """A system user that servers run as."""

    name: str
    uid: int
    gid: int


def server_account(data: Path) -> Account:
    """Return who runs the servers of the data folder `data`; whoever owns data that is there already runs it.

    Raises ConfigurationError when no user can be found that PostgreSQL would accept.
    """
    if not runs_as_root():
        return _account_by_id(os.geteuid())
    try:
        owner = data.stat().st_uid
    except FileNotFoundError:
        return _unprivileged_account()
    return _account_by_id(owner)


def _account_by_id(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        msg = (
            f"user id {uid} has no name on this machine and PostgreSQL refuses to run without one; "
            "add it to /etc/passwd, or set POSITION_LEDGER_DATABASE_URL and POSITION_LEDGER_REDIS_URL"
        )
        raise ConfigurationError(msg) from None
    return Account(entry.pw_name, uid, entry.pw_gid)


def _unprivileged_account() -> Account:
    """The system user of the servers, created if it is missing, by one process at a time."""
    make_root_folder()
    lock_fd = locks.open_lock_file(CREATE_LOCK)
    try:
        locks.lock_within(lock_fd, len(_CREATE_COMMANDS) * CREATE_LIMIT_S)
        return _found_or_created()
    finally:
        os.close(lock_fd)


def _found_or_created() -> Account:
    account = _account_by_name(SYSTEM_USER)
    for command in _CREATE_COMMANDS:
        account = account or _create(command)
    for name in FALLBACK_USERS:
        account = account or _account_by_name(name)
    if account is None:
        msg = (
            f"root cannot run PostgreSQL itself and user {SYSTEM_USER!r} could not be created; create it, "
            "run the ledger as an ordinary user, or set POSITION_LEDGER_DATABASE_URL and POSITION_LEDGER_REDIS_URL"
        )
        raise ConfigurationError(msg)
    return account


def _account_by_name(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return None if entry.pw_uid == 0 else Account(name, entry.pw_uid, entry.pw_gid)


def _create(command: tuple[str | os.PathLike[str], ...]) -> Account | None:
    """Try one way to create the system user; another program that is doing the same may win, which is as good."""
    program = shutil.which(str(command[0]), path=f"{os.defpath}:/usr/sbin:/sbin")
    if program is None:
        return None
    subprocess.run(  # noqa: S603  (fixed commands, above)
        [program, *command[1:], SYSTEM_USER],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=CREATE_LIMIT_S,
        check=False,
    )
    return _account_by_name(SYSTEM_USER)
