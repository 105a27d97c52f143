"""What a swap leaves to be validated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger.errors import VerificationFailed
from position_ledger.projection import foreign_keys
from tests.support import engine
from tests.support.rebuilding import execute

if TYPE_CHECKING:
    from position_ledger.settings import Settings


LEFT = "SELECT unvalidated FROM projection_generations WHERE projection = 'positions'"


def left_to_validate(settings: Settings) -> list[object]:
    with engine.connected(settings) as connection:
        return [row[0] for row in connection.execute(LEFT)]


def test_a_foreign_key_that_was_dropped_meanwhile_needs_no_validation(settings: Settings) -> None:
    execute(settings, """UPDATE projection_generations SET unvalidated = '[["ledger", "gone", "gone_fkey"]]'""")
    with engine.connected(settings, as_app=False) as owner:
        foreign_keys.validate_pending(owner, "positions")
    assert left_to_validate(settings) == [[]]


def test_a_foreign_key_that_does_not_hold_is_named_and_stays_noted(settings: Settings) -> None:
    execute(
        settings,
        "CREATE TABLE held (row_id bigint)",
        "INSERT INTO held VALUES (424242)",
        "ALTER TABLE held ADD CONSTRAINT held_row FOREIGN KEY (row_id) REFERENCES positions (id) NOT VALID",
        """UPDATE projection_generations SET unvalidated = '[["ledger", "held", "held_row"]]'""",
    )
    with engine.connected(settings, as_app=False) as owner, pytest.raises(VerificationFailed, match="held_row"):
        foreign_keys.validate_pending(owner, "positions")
    assert left_to_validate(settings) == [[["ledger", "held", "held_row"]]]
