"""One way to run a command: exit codes, one sentence for every error, quiet when nobody listens any more."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from position_ledger.domain.errors import LedgerError
from position_ledger.errors import DatabaseUnavailable, RebuildCancelled, VerificationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DONE = 0
ANSWER_IS_NO = 1
COULD_NOT_RUN = 2
INTERRUPTED = 130
NOBODY_READS = 141
"""What the shell says of a program that SIGPIPE ended: a pipeline with head is no failure."""


def run(command: click.Command, program: str, arguments: Sequence[str]) -> int:
    """Run a command line and answer its exit code; never raises.

    Not by the `main` of click, which would answer 1, «the answer is no», when a pipe is closed.
    """
    debug = "--debug" in arguments
    _never_fail_on_a_character()
    try:
        with command.make_context(program, list(arguments)) as context:
            answer = command.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return COULD_NOT_RUN
    except BrokenPipeError:
        _stop_writing()
        return NOBODY_READS
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where an error can be put into words
        if debug:
            traceback.print_exc()
        say(f"{_program(error, program)}: {sentence(error)}")
        return ANSWER_IS_NO if isinstance(error, VerificationFailed | RebuildCancelled) else COULD_NOT_RUN
    return answer if isinstance(answer, int) else DONE


def say(message: str) -> None:
    """One line for people, on standard error."""
    with suppress(OSError, ValueError):
        print(" ".join(printable(message).split()), file=sys.stderr, flush=True)  # noqa: T201 - the one place


def note(message: str) -> None:
    """Tell what happens while it happens, on standard error."""
    say(f"position-ledger: {message}")


def printable(text: str) -> str:
    """The text with every control character written out: what others chose cannot drive the terminal."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t " else repr(sign)[1:-1] for sign in text)


def sentence(error: BaseException) -> str:
    """What went wrong, in one sentence that ends with a command that helps where the error does not name one."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words(error)
    return (
        f"unexpected {type(error).__name__}: {_first_line(error)}; run the command again with --debug and report what "
        "it prints"
    )


def _usage(error: Any) -> str:
    path = error.ctx.command_path if error.ctx is not None else "position-ledger"
    text = error.format_message().rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; see {path} --help"


def _unavailable(error: BaseException) -> str:
    text = str(error)
    return text if "position-ledger " in text else f"{text}; position-ledger doctor looks closer"


def _file(error: Any) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}; correct the path, its rights or the space there, and run it again"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")


_WORDS: tuple[tuple[type[BaseException], Callable[[Any], str]], ...] = (
    (DatabaseUnavailable, _unavailable),
    (LedgerError, str),
    (click.UsageError, _usage),
    (click.ClickException, lambda error: error.format_message().rstrip(".")),
    (OSError, _file),
    (MemoryError, lambda _error: "there is not enough memory for this; narrow the command by its options"),
)


def _program(error: BaseException, program: str) -> str:
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context is not None else program


def _never_fail_on_a_character() -> None:
    """Names in other scripts must not end a command on a terminal of another encoding."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _stop_writing() -> None:
    """Point standard output to nowhere, so that the interpreter does not complain when it flushes it at the end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
