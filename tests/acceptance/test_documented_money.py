"""docs/how-to/money-and-corrections.md: the code of the page runs as it stands there and prints what the page shows."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from position_ledger import Ledger

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "money-and-corrections.md"


def test_the_page_shows_what_happens(ledger: Ledger) -> None:
    def show(table: str, *columns: str, market: str | None = None) -> None:
        ledger.catch_up()
        row = ledger.rows(table, **({} if market is None else {"market_id": market}))[0]
        print("  ".join(f"{name} {row[name]}" for name in columns))  # noqa: T201 - what the page shows

    names: dict[str, Any] = {"ledger": ledger, "show": show}
    blocks = re.findall(r"```(python)?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    for (_, code), (_, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        printed = StringIO()
        with redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - our own page
        assert printed.getvalue() == shown
