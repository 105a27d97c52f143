"""What a command refers to must exist, wherever it says so; a table that is not in use is not asked."""

from __future__ import annotations

from typing import Any

import pytest

from position_ledger.domain.commands import Command
from position_ledger.domain.decisions import COMMANDS
from position_ledger.domain.edges.commands import DetectEdge
from position_ledger.domain.references import REFERENCE_TABLES, require_references
from position_ledger.domain.rejections import CommandRejected, Reason
from tests.unit.domain.world import World

KNOWN: dict[str, set[str | int]] = {"strategy": {1}, "model": {2}, "platform": {"kalshi"}, "market_event": {"game"}}
POSITION = {"environment": "paper", "account": "main", "market": "M", "side": "YES", "quantity": 1}
ASKING: dict[str, dict[str, Any]] = {
    "OpenPosition": POSITION | {"entry_price": "0.5"},
    "RecordFill": POSITION | {"action": "buy", "price": "0.5"},
    "DetectEdge": {"environment": "paper", "market": "M", "true_win_probability": "0.5"},
}
"""Commands that refer to rows of reference tables, and what they need beside that."""
CASES = [
    (name, field)
    for name, command in COMMANDS.items()
    for field in REFERENCE_TABLES
    if field in command.model_fields and name in ASKING
]


def of(field: str, *, known: bool) -> str | int:
    row = next(iter(KNOWN[field]))
    return row if known else (row + 1 if isinstance(row, int) else f"{row}?")


@pytest.mark.parametrize(("name", "field"), CASES)
def test_a_row_that_does_not_exist_is_refused_by_name(name: str, field: str) -> None:
    """S90."""
    world = World(references=KNOWN)
    world.do(COMMANDS[name](**ASKING[name], **{field: of(field, known=True)}))
    log = len(world.log)

    with pytest.raises(CommandRejected) as caught:
        world.do(COMMANDS[name](**ASKING[name], **{field: of(field, known=False)}))

    assert caught.value.reason is Reason.REFERENCE_UNKNOWN
    assert caught.value.reason.transient
    assert caught.value.details == {
        "field": field,
        "value": of(field, known=False),
        "table": REFERENCE_TABLES[field],
    }
    assert len(world.log) == log


@pytest.mark.parametrize(("name", "field"), CASES)
def test_a_table_that_is_not_in_use_is_not_asked(name: str, field: str) -> None:
    others = {other: rows for other, rows in KNOWN.items() if other != field}
    assert World(references=others).do(COMMANDS[name](**ASKING[name], **{field: of(field, known=False)})).appends


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in COMMANDS.values() for field in REFERENCE_TABLES if field in kind.model_fields],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_whatever_command_names_a_row_is_checked(kind: type[Command], field: str) -> None:
    """Also those that are added later: having the field is enough."""
    world = World(references=KNOWN)
    require_references(kind.model_construct(**{field: of(field, known=True)}), world)
    with pytest.raises(CommandRejected) as caught:
        require_references(kind.model_construct(**{field: of(field, known=False)}), world)
    assert (caught.value.reason, caught.value.details["field"]) == (Reason.REFERENCE_UNKNOWN, field)


def test_every_reference_table_is_named_by_some_command() -> None:
    named = {field for kind in COMMANDS.values() for field in REFERENCE_TABLES if field in kind.model_fields}
    assert named == set(REFERENCE_TABLES)
    assert {field for name, field in CASES if name in {"OpenPosition", "RecordFill"}} == named - {"market_event"}


def test_the_first_of_several_is_told_and_edges_come_last() -> None:
    world = World(references=KNOWN)
    with pytest.raises(CommandRejected, match="strategy is 9"):
        world.open(strategy=9, model=9, edge=9)
    with pytest.raises(CommandRejected, match="model is 9"):
        world.open(strategy=1, model=9, edge=9)
    with pytest.raises(CommandRejected, match="edge 9 not found"):
        world.open(strategy=1, model=2, edge=9)
    with pytest.raises(CommandRejected, match="strategy is 9"):
        world.do(DetectEdge(environment="paper", market="M", strategy=9, true_win_probability=1))
