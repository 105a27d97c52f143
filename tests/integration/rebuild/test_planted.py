"""One cell that somebody changed, in the live table or in the one that is built: no rebuild swaps without naming it."""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import Ledger, MarkPosition, operations, replace
from position_ledger.errors import VerificationFailed
from position_ledger.events import PositionMarked
from position_ledger.operations import RebuildOptions
from position_ledger.projection import comparing, generations
from position_ledger.projection.carrying import amounts
from position_ledger.reference.projections import positions
from position_ledger.store.codec import amounts_of
from tests.support import asks_amounts, engine
from tests.support.commands import opening
from tests.support.engine import Traffic
from tests.support.rebuilding import left_over, rebuild

if TYPE_CHECKING:
    from position_ledger.projection.differences import Difference
    from position_ledger.settings import Settings

VERSION = " WHERE position_id = %(id)s AND version = "
LIVE = {
    "UPDATE positions SET cost = cost + 1e-18" + VERSION + "2": "cost is 42.000000000000000001",
    "UPDATE positions SET unrealized_pnl = -unrealized_pnl" + VERSION + "2": "unrealized_pnl is -",
    "UPDATE positions SET average_entry_price = NULL" + VERSION + "2": "average_entry_price is null",
    "UPDATE positions SET position_metadata = '{\"a\": 1.00}'" + VERSION + "1": 'position_metadata is {"a": 1.00}',
    "UPDATE positions SET mark_time = mark_time + interval '1 us'" + VERSION + "2": "mark_time is",
    "UPDATE positions SET row_expiration_date = row_expiration_date + interval '1 us'" + VERSION + "2":
        "row_expiration_date is",
    "UPDATE positions SET row_current_ind = false, row_expiration_date = now() + interval '1 h'" + VERSION + "3":
        "row_current_ind is false, the log says true",
    "UPDATE positions SET is_dust = NOT is_dust" + VERSION + "2": "is_dust is true",
    "UPDATE positions SET restatements = 1" + VERSION + "3": "restatements is 1",
    "UPDATE positions SET account_id = 'Main'" + VERSION + "3": "account_id is Main, the log says main",
}  # fmt: skip


@pytest.fixture
def history(settings: Settings, ledger: Ledger) -> str:
    """A position with three versions and metadata among others, all projected."""
    Traffic(ledger, 4).run(40)
    opened = ledger.execute(opening(metadata={"a": 1}))
    for price in ("0.50", "0.60"):
        ledger.execute(MarkPosition(position_id=str(opened.position_id), price=price))
    engine.project_all(settings)
    return str(opened.position_id)


def forged(settings: Settings, *statements: str, **values: str) -> None:
    with engine.connected(settings, as_app=False) as owner, owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            assert owner.execute(statement.encode(), values).rowcount > 0


def compared(settings: Settings) -> list[Difference]:
    """What a rebuild finds when it compares the live table with its shadow."""
    projection = engine.positions_of(settings)
    with engine.connected(settings, as_app=False) as owner:
        live, shadow = (
            next(one for one in generations.kept(owner) if one.state == state) for state in ("active", "building")
        )
        return comparing.generations_differ(owner, live, shadow, projection.columns, projection.key_column)[1]


@pytest.mark.uncounted
def test_one_cell_of_the_live_table_is_named_whatever_its_type(settings: Settings, history: str) -> None:
    before = engine.positions_rows(settings)
    forged(settings, "CREATE TABLE public.kept AS TABLE positions")
    rebuild(settings, swap=False)
    for change, words in LIVE.items():
        forged(settings, change, id=history)
        found = compared(settings)
        assert words in str(found[0]), change
        assert {one.key for one in found} == {history}
        forged(settings, "DELETE FROM positions", "INSERT INTO positions TABLE public.kept")
    assert engine.positions_rows(settings) == before
    assert rebuild(settings).differences == []


def test_one_cell_of_a_shadow_that_waits_is_named_before_the_swap(settings: Settings, history: str) -> None:
    shadow = rebuild(settings, swap=False).generation_id
    forged(settings, f"UPDATE ledger_g{shadow}.positions SET cost = cost + 1e-18" + VERSION + "2", id=history)
    with pytest.raises(
        VerificationFailed, match=rf"first at positions {history}, row \d+: cost is 42\.0*1, the log says"
    ):
        rebuild(settings, accept_differences=True)
    assert left_over(settings) == []
    assert rebuild(settings).swapped


@pytest.mark.uncounted
def test_one_cell_of_a_shadow_that_is_changed_after_its_load_is_named(
    settings: Settings, ledger: Ledger, history: str
) -> None:
    """An owner's stray UPDATE beside commands that go on, in a column that the new code means to change, too."""
    told: list[str] = []

    def tell(message: str) -> None:
        told.append(message)
        if message.startswith("indexes, constraints"):
            shadow = next(words for words in " ".join(told).split() if words.startswith("ledger_g"))
            forged(settings, f"UPDATE {shadow}.positions SET quantity = quantity - 1e-18" + VERSION + "2", id=history)
            ledger.execute(MarkPosition(position_id=history, price="0.70"))
            engine.project_all(settings)

    options = RebuildOptions(changed=("quantity",))
    with pytest.raises(
        VerificationFailed, match=rf"first at positions {history}, row \d+: quantity is .*, the log says"
    ):
        operations.rebuild(settings, engine.reached(settings), "positions", options=options, tell=tell)
    assert left_over(settings) == []
    assert rebuild(settings).swapped


@pytest.mark.parametrize("is_mistaken", [True, False])
def test_a_load_that_leaves_as_text_what_a_fold_asks_is_found_before_the_swap(
    settings: Settings, history: str, monkeypatch: pytest.MonkeyPatch, *, is_mistaken: bool
) -> None:
    """The column is one that the new code means to change, so that the live table says nothing about it."""
    asking = settings.model_copy(update={"projections": asks_amounts.MODULE})
    if is_mistaken:  # as if what folds do with amounts had been read wrongly from their source
        of_all = {event.TOPIC: amounts_of(event) for event in asks_amounts.POSITIONS.folds}
        monkeypatch.setattr(amounts, "carried_amounts", lambda _: of_all)
        with pytest.raises(VerificationFailed, match=r"made another row .* mark_source is null, the log says a half"):
            rebuild(asking, changed=("mark_source",))
        assert left_over(settings) == []
        asking = asking.model_copy(update={"rebuild_leaves_text": False})  # as the sentence says
    rebuild(asking, changed=("mark_source",))
    with engine.connected(settings) as connection:
        found = connection.execute(
            "SELECT mark_source FROM positions WHERE position_id = %s ORDER BY version", (history,)
        )
        assert [source for (source,) in found] == [None, "a half", None]


def test_a_fold_that_does_not_give_the_same_row_each_time_is_found(
    settings: Settings, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restless(row: Any, event: Any) -> Any:
        return replace(positions.marked(row, event), mark_source=secrets.token_hex(8))

    projection = dataclasses.replace(positions.POSITIONS, folds={**positions.POSITIONS.folds, PositionMarked: restless})
    monkeypatch.setattr(asks_amounts, "POSITIONS", projection)
    restless_settings = settings.model_copy(update={"projections": asks_amounts.MODULE})
    with pytest.raises(VerificationFailed, match=r"a fold that does not give the same row each time"):
        rebuild(restless_settings, changed=("mark_source",))
    assert left_over(settings) == []
