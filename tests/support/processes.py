"""Processes of a test's own: started from a module, paused, killed, and always ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

END_LIMIT_S = 20.0


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start ``python <arguments>`` with pipes to its input and from its output; the end of the block kills it."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(environment),
    )
    try:
        yield process
    finally:
        kill(process)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, **extra}


def kill(process: subprocess.Popen[str]) -> None:
    """End a process at once, as the kernel does when memory is out; harmless if it has ended."""
    with suppress(ProcessLookupError):
        process.kill()
    process.wait(END_LIMIT_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """Let a process stand still for the block, as a machine under pressure does; SIGSTOP cannot be caught."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
