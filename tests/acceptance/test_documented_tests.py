"""The example of docs/how-to/test-with-replay.md runs as it stands there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from position_ledger import Ledger

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-with-replay.md"


def documented() -> dict[str, Any]:
    """The functions of the first Python block of the page."""
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(compile(block[1], str(PAGE), "exec"), names)  # noqa: S102 - our own page
    return {name: value for name, value in names.items() if name.startswith("test_")}


@pytest.mark.parametrize("name", sorted(documented()))
def test_the_documented_test_passes(name: str, ledger: Ledger) -> None:
    test = documented()[name]
    wanted = inspect.signature(test).parameters

    test(**({"ledger": ledger} if "ledger" in wanted else {}))
