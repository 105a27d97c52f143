"""What live projecting writes is what the log says, whatever the history and however it was cut into batches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger.domain.decisions import Append, fold_append
from position_ledger.projection.generations import kept
from position_ledger.projection.leases import acquire
from position_ledger.projection.projector import Projector
from position_ledger.store import feed
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import CODEC, Traffic

if TYPE_CHECKING:
    from position_ledger import Ledger
    from position_ledger.settings import Settings

SEEDS = (1, 2, 3)


def recomputed(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """The positions, each folded by the domain alone from its own stream: no part of the engine is used."""
    histories: dict[str, list[dict[str, Any]]] = {}
    with engine.connected(settings, as_app=False) as connection:
        rows = connection.execute(
            "SELECT originator_id, originator_version, notification_id, topic, state, effective_at, recorded_at"
            " FROM events WHERE topic LIKE 'position.%' ORDER BY originator_id, originator_version"
        ).fetchall()
    states: dict[Any, Any] = {}
    names: dict[Any, str] = {}
    for stream, version, seq, topic, body, effective_at, recorded_at in rows:
        event = CODEC.decode(topic, bytes(body))
        states[stream] = fold_append(states.get(stream), Append(stream, version, event, effective_at))
        names.setdefault(stream, f"POS-{seq}")
        histories.setdefault(names[stream], []).append(
            {"id": seq, "state": states[stream], "from": recorded_at, "effective_at": effective_at}
        )
    return histories


@pytest.mark.uncounted
@pytest.mark.parametrize("seed", SEEDS)
def test_every_version_is_what_the_domain_says(settings: Settings, ledger: Ledger, seed: int) -> None:
    # Given a random history with several positions per key, partial exits, flips and settlements
    Traffic(ledger, seed).run(150)
    engine.project_all(settings)
    # When every position is folded again by the domain
    expected = recomputed(settings)
    # Then the table has exactly those versions, one after the other
    assert {row["position_id"] for row in ledger.positions()} == expected.keys()
    for position, history in expected.items():
        rows = ledger.history(position)
        assert [row["id"] for row in rows] == [one["id"] for one in history]
        assert [row["row_effective_date"] for row in rows] == [one["from"] for one in history]
        assert [row["row_expiration_date"] for row in rows] == [one["from"] for one in history[1:]] + [None]
        for row, one in zip(rows, history, strict=True):
            state = one["state"]
            for column in ("quantity", "entry_quantity", "exit_quantity", "peak_quantity"):
                assert row[column] == getattr(state, column), (position, row["version"], column)
            assert row["status"] == state.status
            assert row["cost"] == state.cost
            assert row["realized_gross"] == state.realized_gross
            assert row["effective_at"] == one["effective_at"]
    engine.proven(settings)


@pytest.mark.uncounted
def test_batches_of_any_size_give_the_same_bytes(settings: Settings, ledger: Ledger) -> None:
    # Given a history, and a table projected in one batch
    Traffic(ledger, 7).run(120)
    engine.project_all(settings)
    whole = engine.positions_rows(settings)
    assert len(whole) > 100
    # When the same log is projected again into an emptied table, in batches of other sizes
    for limit in (1, 2, 3, 17, 64):
        assert rewound(settings, limit) == whole
    engine.proven(settings)


def rewound(settings: Settings, limit: int) -> list[tuple[str, ...]]:
    """Empty the table as only its owner can, and project it from the beginning, so many events at a time."""
    projection = engine.positions_of(settings)
    with engine.connected(settings, as_app=False) as owner, owner.transaction():
        for table in ("positions", "projection_checkpoints"):
            owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
        owner.execute("TRUNCATE positions")
        owner.execute(
            "UPDATE projection_checkpoints SET position = 0, lease_until = '-infinity' WHERE generation_id = %s",
            (engine.active(settings).generation_id,),
        )
        for table in ("positions", "projection_checkpoints"):
            owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER".encode())
    with engine.connected(settings) as connection:
        (generation,) = kept(connection, "positions")
        projector = Projector(connection, generation, projection, CODEC)
        held = acquire(connection, generation.generation_id, "rewound", limit=16)
        horizon = feed.horizon(connection)
        while held[0].position < horizon:
            progress = projector.project(held, horizon, limit=limit)
            assert progress.events <= limit
            if progress.position % 5 == 0:
                projector.forget()  # as after a change of workers
    return engine.positions_rows(settings)


class Counting:
    """A connection that counts the statements which pass through it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.statements: Counter[str] = Counter()

    def execute(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        text = statement.decode() if isinstance(statement, bytes) else statement
        text = text if isinstance(text, str) else text.as_string(self._connection)
        self.statements[" ".join(text.split())[:60]] += 1
        return self._connection.execute(statement, *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_a_batch_takes_the_same_few_statements_whatever_its_size(settings: Settings, ledger: Ledger) -> None:
    traffic = Traffic(ledger, 3)
    traffic.run(10)
    used: list[int] = []
    with engine.connected(settings) as connection:
        (generation,) = kept(connection, "positions")
        counting = Counting(connection)
        projector = Projector(counting, generation, engine.positions_of(settings), CODEC)  # type: ignore[arg-type]
        held = acquire(connection, generation.generation_id, "counting", limit=16)
        for commands in (0, 10, 100, 400):
            traffic.run(commands)
            projector.forget()
            counting.statements.clear()
            progress = projector.project(held, feed.horizon(connection))
            assert progress.versions > commands / 3
            used.append(counting.statements.total())
    # One less where no stream began before the batch, so that no number has to be looked up.
    assert used[0] <= used[1] <= used[2] == used[3] == 6, used


def test_a_token_of_an_event_that_concerns_no_table_becomes_visible(settings: Settings, ledger: Ledger) -> None:
    # Given an append whose last number belongs to the book, which no table shows
    executed = ledger.execute(opening())
    # When it is projected, then the checkpoint passes it all the same
    engine.project_all(settings)
    ledger.wait_for(executed.token, timeout_s=0.001)
