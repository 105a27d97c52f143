"""What is the same: contents, fills, rows without ids. Values are pinned, because they are in databases for ever."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.book import BookKey, book_stream
from position_ledger.domain.commands import ClosePosition, Handle, MarkPosition, OpenPosition, RecordFill
from position_ledger.domain.decisions import COMMANDS, fill_key
from position_ledger.domain.identity import (
    content_digest,
    derived_fill_id,
    fill_key_of,
    require_same_command,
    require_same_fill,
    row_text,
)
from position_ledger.domain.rejections import CommandRejected
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.world import D, World, examples

OPENING = {
    "environment": "paper", "account": "main", "market": "M", "side": "YES", "quantity": 10, "entry_price": "0.40",
}  # fmt: skip


def test_the_digest_of_a_content_is_pinned() -> None:
    digest = content_digest(
        OpenPosition(**OPENING, metadata={"b": 1, "a": [None, 0.5]}, effective_at="2026-03-01T00:00Z")
    )
    assert digest.hex() == "3d6e155b8825278a89dc8f9b67223e10192818a3c1f5e7d75223bb0f703f5071"


def test_who_asks_and_how_numbers_are_written_is_no_content() -> None:
    plain = OpenPosition(**OPENING)
    other = OpenPosition(
        **OPENING | {"quantity": D("10.00"), "entry_price": D("4E-1")},
        command_id=uuid4(), actor="someone", correlation_id="a", causation_id="b", handle="h", fee="0.0",
    )  # fmt: skip
    assert content_digest(plain) == content_digest(other)
    require_same_command(other, content_digest(plain))
    require_same_fill(other, content_digest(plain))


@pytest.mark.parametrize(
    "change",
    [{"quantity": 11}, {"side": "NO"}, {"environment": "live"}, {"metadata": {"a": 1}}, {"fee": 1}, {"strategy": 1}],
)
def test_everything_else_is_content(change: dict[str, object]) -> None:
    assert content_digest(OpenPosition(**OPENING)) != content_digest(OpenPosition(**OPENING | change))


def test_the_kind_of_command_is_content() -> None:
    fields = {"position_id": "POS-1", "price": "0.5"}
    assert content_digest(MarkPosition(**fields)) != content_digest(ClosePosition(**fields, reason="manual"))


def test_the_order_of_metadata_is_no_content() -> None:
    one = MarkPosition(position_id=1, price=1)
    assert content_digest(one) == content_digest(MarkPosition(price=1, position_id=1))
    left = OpenPosition(**OPENING, metadata={"a": 1, "b": {"c": 2, "d": 3}})
    right = OpenPosition(**OPENING, metadata={"b": {"d": 3, "c": 2}, "a": 1})
    assert content_digest(left) == content_digest(right)


def test_commands_survive_json() -> None:
    """A replay file holds commands as JSON objects."""
    commands = [
        OpenPosition(**OPENING, trailing_stop={"trail_percent": "0.1"}, effective_at="2026-03-01T01:00:00+01:00"),
        MarkPosition(position_id=Handle("h"), price="0.5"),
        MarkPosition(position_id=17, price="0.5"),
        RecordFill(**{k: v for k, v in OPENING.items() if k != "entry_price"}, action="buy", price=1, on_excess="flip"),
    ]
    for command in commands:
        written = command.model_dump_json(exclude_defaults=True)
        read = COMMANDS[type(command).__name__].model_validate_json(written)
        assert content_digest(read) == content_digest(command)
        assert json.loads(read.model_dump_json(exclude_defaults=True)) == json.loads(written)


def test_fills_are_unique_by_environment_account_venue_and_id() -> None:
    base = (Environment.PAPER, "main", "kalshi", "f-1")
    assert fill_key_of(*base) == '["paper","main","kalshi","f-1"]'
    others = [
        fill_key_of(Environment.LIVE, "main", "kalshi", "f-1"),
        fill_key_of(Environment.PAPER, 'main","kalshi', "f", "1"),
        fill_key_of(Environment.PAPER, "main", None, "f-1"),
        fill_key_of(Environment.PAPER, "main", "kalshi", "f-2"),
    ]
    assert len({fill_key_of(*base), *others}) == 5
    assert fill_key_of(Environment.PAPER, "main", "kalshi", None) is None


def test_a_fill_is_recognised_before_it_is_decided() -> None:
    # given a position that a fill has closed
    world = World()
    fill = {"action": "sell", "quantity": 10, "price": ".5", "venue": "v", "venue_fill_id": "f-1"}
    world.open()
    key_fields = {"environment": "paper", "account": "main", "market": "M", "side": "YES"}
    by_id, by_key = RecordFill(position_id="POS-1", **fill), RecordFill(**fill, **key_fields)
    key = world.do(by_id).fill_key

    # then sending it again would be refused, but it is known to be the same fill, however it is addressed
    with pytest.raises(CommandRejected):
        world.do(by_id)
    assert key == fill_key(by_id, world) == fill_key(by_key, world) == '["paper","main","v","f-1"]'
    assert fill_key(MarkPosition(position_id="POS-1", price=1), world) is None
    assert fill_key(RecordFill(position_id="POS-1", action="buy", quantity=1, price=1), world) is None


def test_ids_derived_from_rows_are_pinned() -> None:
    text = row_text({"shares": "43.9", "user_id": "xznthbxx", "price": "0.974"})
    assert text == '{"price":"0.974","shares":"43.9","user_id":"xznthbxx"}'
    assert derived_fill_id(text, 0) == "4704fb511819f9a7522213b1cf85e0d519b836d8261142f28b98b9b682f6df27"
    assert derived_fill_id(text, 1) != derived_fill_id(text, 0)


@examples(50)
@given(rows=st.lists(st.sampled_from(["a", "b", "c"]), max_size=20), cut=st.integers(0, 20))
def test_a_longer_export_keeps_the_ids_of_what_it_repeats(rows: list[str], cut: int) -> None:
    def ids(export: list[str]) -> list[str]:
        return [derived_fill_id(row, export[:index].count(row)) for index, row in enumerate(export)]

    assert ids(rows)[:cut] == ids(rows[:cut])
    assert len(set(ids(rows))) == len(rows)


def test_book_streams_are_pinned() -> None:
    key = BookKey(Environment.PAPER, "main", "KXNBA-CLE", 1)
    assert book_stream(key) == UUID("efa99c23-4ef0-5074-a3f0-202122760438")
    different = {
        book_stream(key),
        book_stream(BookKey(Environment.LIVE, "main", "KXNBA-CLE", 1)),
        book_stream(BookKey(Environment.PAPER, "main", "KXNBA-CLE", None)),
        book_stream(BookKey(Environment.PAPER, "main,KXNBA-CLE", "", 1)),
    }
    assert len(different) == 4
