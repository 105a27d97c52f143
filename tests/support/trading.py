"""What the processes of a test run: functions that a fresh interpreter can import."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from position_ledger import CommandRejected, Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from position_ledger import Command, Executed


def execute(database_url: str, redis_url: str, commands: Sequence[Command]) -> list[Any]:
    """Execute commands one by one in a ledger of this process; a refusal is answered as its code."""
    with Ledger.open(database_url=database_url, redis_url=redis_url) as ledger:
        return [_answer(ledger, command) for command in commands]


def _answer(ledger: Ledger, command: Command) -> Executed | str:
    try:
        return ledger.execute(command)
    except CommandRejected as error:
        return error.reason.code


def execute_in_processes(
    database_url: str, redis_url: str, work: Sequence[Sequence[Command]]
) -> list[list[Executed | str]]:
    """Execute each list of commands in a process of its own, all at once."""
    with ProcessPoolExecutor(len(work), mp_context=get_context("spawn")) as pool:
        asked = [pool.submit(execute, database_url, redis_url, commands) for commands in work]
        return [one.result(60) for one in asked]
