"""docs/how-to/own-tables.md, done to the letter: its files are written, its commands run, its output compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support import engine
from tests.support.command_line import Answer, CommandLine, in_this_process, on
from tests.support.pages import commands, exactly, text_of
from tests.support.team_folder import forget_folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEP = re.compile(
    r"(?:^`(?P<path>[^`\n]+)`\n\n)?^```(?P<language>\w*)\n(?P<content>.*?)^```$", re.DOTALL | re.MULTILINE
)


def steps() -> Iterator[tuple[str | None, str]]:
    """The blocks of the page in order: with the path that stands before them, or none: commands and their output."""
    for found in STEP.finditer(text_of("own-tables")):
        yield found["path"], found["content"]


@dataclass
class Reader:
    """Does what the page says: commands of the ledger where the test runs, the others in a shell."""

    place: Path
    run_ledger: CommandLine
    environment: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, content: str) -> None:
        """Write a file as it stands on the page."""
        (self.place / path).write_text(content, encoding="utf-8")

    def follow(self, command: str, shown: str) -> None:
        """Run a command and compare its output; one that is answered with another command to run has said no."""
        if command.startswith("cd "):
            self.place /= command.removeprefix("cd ")
            return
        answer = self.run(command)
        self.said[command] = answer.out
        assert answer.code == int("run rebuild-projection" in shown), (command, answer)
        assert exactly(shown).fullmatch(answer.out), (command, answer, shown)

    def run(self, command: str) -> Answer:
        """Run a command to its end, in the folder that the page is in."""
        program, *arguments = shlex.split(command)
        forget_folders()
        with chdir(self.place):
            if program == "position-ledger":
                return self.run_ledger(*arguments)
            if program == "rebuild-projection":
                return self.run_ledger(program, *arguments)
            done = subprocess.run(
                ["sh", "-c", command], env=self.environment, capture_output=True, text=True, timeout=120,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def reader(ledger_server_url: str, ledger_redis_url: str, tmp_path: Path) -> Iterator[Reader]:
    """Somebody with an empty database and a shell that knows this Python."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    name = f"own_tables_{os.getpid()}"
    url = engine.new_database(ledger_server_url, name)
    environment = on(url, ledger_redis_url).environment(
        POSITION_LEDGER_TEST_DATABASE_URL=ledger_server_url,
        POSITION_LEDGER_TEST_REDIS_URL=ledger_redis_url,
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    )
    yield Reader(tmp_path, in_this_process(url), environment)
    engine.drop_database(ledger_server_url, name)


@pytest.mark.uncounted
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_page_does_what_it_says(reader: Reader) -> None:
    """Given a ledger with history, when the page is followed, then the new table has the rows of the past."""
    for path, content in steps():
        if path is not None:
            reader.write(path, content)
        else:
            for command, shown in commands(content):
                reader.follow(command, shown)
    assert "equals the log" in reader.said["position-ledger verify margin_calls"]
    assert reader.said["position-ledger migrate down"]
    assert (reader.place / "projections" / "positions.py").is_file()
