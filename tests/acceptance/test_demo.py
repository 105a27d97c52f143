"""`position-ledger demo`: the main job end to end, in short, with everything real that the long form has."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from position_ledger import demo

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = 1_200
LINES_MAX = 45


def test_the_demo_proves_what_it_shows_on_one_screen(tmp_path: Path) -> None:
    screen = io.StringIO()

    is_proven = demo.run(tmp_path / "home", commands=COMMANDS, console=Console(file=screen, width=100))

    said = screen.getvalue()
    assert is_proven, said
    assert "equal the log, column by column" in " ".join(said.split())
    assert "worst mark so far" in said
    assert " 0 errors" in said
    assert len(said.splitlines()) <= LINES_MAX
