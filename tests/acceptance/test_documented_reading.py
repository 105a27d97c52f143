"""The examples of docs/how-to/position-manager.md and reports.md do and print what stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from position_ledger import PositionManager
from tests.support.command_line import in_this_process

if TYPE_CHECKING:
    import pytest

    from position_ledger import Ledger

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
MANAGER = HOW_TO / "position-manager.md"
REPORTS = HOW_TO / "reports.md"


def block(page: Path, language: str) -> str:
    """The first block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def run(page: Path, ledger: Ledger) -> None:
    exec(compile(block(page, "python"), str(page), "exec"), {"ledger": ledger})  # noqa: S102 - our own page


def test_the_manager_prints_what_the_page_says(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    run(MANAGER, ledger)
    assert capsys.readouterr().out == block(MANAGER, "text")


def test_the_page_names_every_method_of_the_manager() -> None:
    methods = [name for name, value in vars(PositionManager).items() if callable(value) and not name.startswith("_")]
    page = MANAGER.read_text(encoding="utf-8")
    assert [name for name in methods if f"`{name}(" not in page] == []


def test_the_reports_print_what_the_page_says(ledger: Ledger) -> None:
    run(REPORTS, ledger)
    command_line = in_this_process(ledger.database_url)
    shown = re.findall(r"```\n\$ position-ledger (.*?)\n(.*?)```", REPORTS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(shown) == 3
    for command, output in shown:
        answer = command_line(*command.split())
        assert (answer.code, answer.err) == (0, "")
        assert answer.out == output
