"""What a swap leaves to be validated, and a catch-up beside workers that hold every shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger.errors import VerificationFailed
from position_ledger.events import EVENTS
from position_ledger.projection import foreign_keys, leases
from position_ledger.projection.catching_up import ROUNDS_MAX, SHORT_TAIL_EVENTS, catch_up
from position_ledger.store.codec import Codec
from tests.support import engine
from tests.support.rebuilding import execute

if TYPE_CHECKING:
    from position_ledger import Ledger
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


def test_a_catch_up_leaves_held_shards_to_their_holders_and_ends(settings: Settings, ledger: Ledger) -> None:
    traffic = engine.Traffic(ledger, 9)
    while traffic.token <= 2 * SHORT_TAIL_EVENTS:
        traffic.run(50)
    generation = engine.active(settings)
    with engine.connected(settings) as holding, engine.connected(settings) as connection:
        held = leases.acquire(holding, generation.generation_id, "somebody", limit=16, lease_s=60)
        assert catch_up(connection, engine.positions_of(settings), generation, Codec(EVENTS)) == ROUNDS_MAX
        leases.release(holding, held)
        assert catch_up(connection, engine.positions_of(settings), generation, Codec(EVENTS)) < ROUNDS_MAX
