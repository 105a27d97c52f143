"""Where the oldest supported PostgreSQL is on this machine: it comes from the system, not from a wheel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "POSITION_LEDGER_TEST_PG15_BIN"
DEBIAN = "/usr/lib/postgresql/15/bin"


def bin_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder with initdb and postgres of PostgreSQL 15.

    Without one a developer's test is skipped with the reason; in CI it fails, so that it cannot go missing unseen.
    """
    folder = Path(environment.get(VARIABLE, DEBIAN))
    if (folder / "postgres").is_file():
        return folder
    reason = f"no PostgreSQL 15 in {folder}: install Debian's postgresql-15 or name its bin folder in {VARIABLE}"
    if environment.get("CI", "").lower() in {"", "0", "false"}:
        pytest.skip(reason)
    pytest.fail(reason)
