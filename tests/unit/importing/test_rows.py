from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.identity import content_digest
from position_ledger.domain.rejections import CommandRejected
from position_ledger.domain.vocabulary import Environment
from position_ledger.importing.mapping import FillMapping, parse_mapping
from position_ledger.importing.refusals import REFUSALS, RowRefused, why_not
from position_ledger.importing.rows import Rows, time_of

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from position_ledger.domain.commands import RecordFill

COLUMNS = """
[columns]
account = "acct"
market = "ticker"
side = "side"
action = "what"
quantity = "count"
price = "price"
time = "at"
"""
ROW = {
    "acct": "alice",
    "ticker": "RAIN",
    "side": "YES",
    "what": "buy",
    "count": "10",
    "price": "0.42",
    "at": "2026-02-26T20:03:48Z",
    "fee": "0.05",
    "feeccy": "",
    "total": "4.20",
    "id": "T1",
    "leg": "a",
    "strategy": "7",
    "role": "Maker",
}


def mapping_of(extra: str = "", order: str = "oldest_first", columns: str = "") -> FillMapping:
    head, _, tables = extra.partition("---")
    return parse_mapping("test", f'order = "{order}"\n{head}\n{COLUMNS}{columns}\n{tables}')


def read(mapping: FillMapping, *rows: dict[str, str]) -> list[RecordFill]:
    reader = Rows(mapping, Environment.PAPER, "import:test")
    return [reader.read(n, list(row.values()), row, time_of(row, mapping)).command for n, row in enumerate(rows, 1)]


def one(mapping: FillMapping, **cells: str) -> RecordFill:
    return read(mapping, ROW | cells)[0]


def test_a_row_becomes_the_fill_that_it_describes() -> None:
    mapping = mapping_of(
        'dust = "0.01"---[constants]\nvenue = "kalshi"\nmodel = 3',
        columns='fee = "fee"\nfee_currency = "feeccy"\nfill_id = "id"\nstrategy = "strategy"\nliquidity = "role"\n',
    )
    fill = one(mapping)
    assert (fill.environment, fill.account, fill.market, fill.side, fill.action) == (
        "paper",
        "alice",
        "RAIN",
        "YES",
        "buy",
    )
    assert (fill.quantity, fill.price, fill.fee, fill.fee_currency) == (
        Decimal(10),
        Decimal("0.42"),
        Decimal("0.05"),
        None,
    )
    assert (fill.venue, fill.venue_fill_id, fill.strategy, fill.model, fill.liquidity) == (
        "kalshi",
        "T1",
        7,
        3,
        "maker",
    )
    assert (fill.effective_at, fill.dust) == (datetime(2026, 2, 26, 20, 3, 48, tzinfo=UTC), Decimal("0.01"))
    assert (fill.correlation_id, fill.causation_id, fill.metadata) == ("import:test", "row:1", None)


@pytest.mark.parametrize(
    ("cells", "extra", "columns", "expected"),
    [
        ({"what": "BUY", "side": "no"}, "", "", {"action": "buy", "side": "NO"}),
        ({"what": "B", "side": "Up"}, "---[values]\naction = {B = 'buy'}\nside = {Up = 'LONG'}", "", {"side": "LONG"}),
        ({"price": "42¢"}, "---[price]\nscale = 0.01\n[numbers]\nstrip = ['¢']", "", {"price": Decimal("0.42")}),
        ({"side": "NO", "price": "0.3"}, "---[price]\nspace = 'yes'", "", {"price": Decimal("0.7")}),
        ({"side": "YES", "price": "0.3"}, "---[price]\nspace = 'yes'", "", {"price": Decimal("0.3")}),
        ({"side": "NO", "price": "30"}, "---[price]\nspace = 'yes'\nscale = 0.01", "", {"price": Decimal("0.7")}),
        ({"side": "NO", "price": "1"}, "---[price]\nspace = 'yes'", "", {"price": Decimal(0)}),
        ({"count": "12500000"}, "---[quantity]\nscale = 1e-6", "", {"quantity": Decimal("12.5")}),
        ({"count": "-4", "what": "sell"}, "---[quantity]\nsign = 'ignore'", "", {"quantity": Decimal(4)}),
        ({"fee": ""}, "", 'fee = "fee"', {"fee": Decimal(0)}),
        ({"fee": "-0.07"}, "---[fee]\nscale = -1", 'fee = "fee"', {"fee": Decimal("0.07")}),
        ({"fee": "-0.07"}, "", 'fee = "fee"', {"fee": Decimal("-0.07")}),
        ({"strategy": ""}, "", 'strategy = "strategy"', {"strategy": None}),
        ({}, "", 'fill_id = ["id", "leg"]', {"venue_fill_id": "T1/a"}),
        ({}, "on_excess = 'flip'", "", {"on_excess": "flip"}),
        ({"total": "-4.2049"}, "", 'amount = "total"', {"quantity": Decimal(10)}),
        ({"total": ""}, "", 'amount = "total"', {"quantity": Decimal(10)}),
    ],
)
def test_what_a_mapping_can_say(cells: dict[str, str], extra: str, columns: str, expected: dict[str, Any]) -> None:
    fill = one(mapping_of(extra, columns=columns + "\n"), **cells)
    assert {name: getattr(fill, name) for name in expected} == expected


@pytest.mark.parametrize(("count", "action"), [("5", "buy"), ("-5", "sell")])
def test_the_sign_of_the_quantity_can_be_the_action(count: str, action: str) -> None:
    text = f'order = "by_time"\n{COLUMNS}[quantity]\nsign = "action"'.replace('action = "what"\n', "")
    fill = one(parse_mapping("test", text), count=count)
    assert (fill.action.value, fill.quantity) == (action, Decimal(5))


@pytest.mark.parametrize(
    ("cells", "columns", "code"),
    [
        ({"acct": ""}, "", "text_blank"),
        ({"ticker": "x" * 1001}, "", "text_invalid"),
        ({"side": "MAYBE"}, "", "side_unknown"),
        ({"side": ""}, "", "side_unknown"),
        ({"what": "redeem"}, "", "action_unknown"),
        ({"count": "0"}, "", "quantity_not_positive"),
        ({"count": "-1"}, "", "quantity_not_positive"),
        ({"count": ""}, "", "number_unreadable"),
        ({"count": "1e30"}, "", "number_too_large"),
        ({"price": "-0.1"}, "", "number_negative"),
        ({"price": "1,5"}, "", "number_unreadable"),
        ({"fee": "free"}, 'fee = "fee"', "number_unreadable"),
        ({"total": "4.30"}, 'amount = "total"', "amount_mismatch"),
        ({"strategy": "scalper"}, 'strategy = "strategy"', "field_invalid"),
        ({"role": "both"}, 'liquidity = "role"', "field_invalid"),
        ({"id": ""}, 'fill_id = "id"', "text_blank"),
        ({"leg": ""}, 'fill_id = ["id", "leg"]', "text_blank"),
    ],
)
def test_a_row_that_is_no_fill_is_refused_with_a_code_and_a_sentence(
    cells: dict[str, str], columns: str, code: str
) -> None:
    with pytest.raises(REFUSALS) as error:
        one(mapping_of(columns=columns + "\n"), **cells)
    told, sentence = why_not(error.value)
    assert told == code
    assert sentence
    assert "\n" not in sentence
    assert isinstance(error.value, RowRefused | CommandRejected)


def test_more_than_18_places_are_rounded_half_even_and_the_text_is_kept() -> None:
    """Nothing of what the venue said is lost."""
    fill = one(mapping_of(), price="0.1234567890123456785", count="0.1000000000000000055511151231257827")
    assert fill.price == Decimal("0.123456789012345678")
    assert fill.quantity == Decimal("0.100000000000000006")
    assert fill.metadata == {
        "price_text": "0.1234567890123456785",
        "quantity_text": "0.1000000000000000055511151231257827",
    }
    exact = one(mapping_of(), price="0.02700000027000000000000")
    assert (exact.price, exact.metadata) == (Decimal("0.02700000027"), None)


def test_ids_do_not_depend_on_what_the_mapping_makes_of_a_row_so_that_a_corrected_mapping_conflicts() -> None:
    plain, other = one(mapping_of()), one(mapping_of("---[price]\nscale = 0.01"))
    assert plain.venue_fill_id == other.venue_fill_id
    assert content_digest(plain) != content_digest(other)


def test_ids_ignore_columns_that_are_not_the_fill_and_how_numbers_are_written() -> None:
    plain = one(mapping_of()).venue_fill_id
    assert plain == one(mapping_of(columns='fee = "fee"\nstrategy = "strategy"\n'), fee="9", strategy="9").venue_fill_id
    assert plain == one(mapping_of(), count="10.0", price="0.420").venue_fill_id
    for cells in ({"count": "11"}, {"price": "0.43"}, {"side": "NO"}, {"what": "sell"}, {"ticker": "SNOW"}):
        assert plain != one(mapping_of(), **cells).venue_fill_id


def test_where_a_row_stands_in_the_file_is_no_part_of_its_content() -> None:
    mapping = mapping_of()
    first, later = read(mapping, ROW, ROW | {"acct": "bob"})[0], read(mapping, ROW | {"acct": "bob"}, ROW)[1]
    assert first.causation_id != later.causation_id
    assert content_digest(first) == content_digest(later)


START = datetime(2026, 1, 1, tzinfo=UTC)
SPOT = st.tuples(st.integers(0, 3), st.sampled_from(["buy", "sell"]), st.sampled_from(["1", "2"]))


def rows_of(spots: Sequence[tuple[int, str, str]]) -> list[dict[str, str]]:
    """Rows in venue order: few seconds, actions and quantities, so that many are identical."""
    ordered = sorted(spots, key=lambda spot: spot[0])
    return [
        ROW | {"at": (START + timedelta(seconds=at)).isoformat(), "what": what, "count": count}
        for at, what, count in ordered
    ]


@given(st.lists(SPOT, max_size=20), st.randoms(use_true_random=False))
def test_any_exports_that_cover_each_second_once_give_the_same_ids(
    spots: list[tuple[int, str, str]], chance: random.Random
) -> None:
    history, mapping = rows_of(spots), mapping_of()
    whole = {fill.venue_fill_id for fill in read(mapping, *history)}
    assert len(whole) == len(history)

    seconds = sorted({row["at"] for row in history})
    found = set()
    for _ in range(4):
        first, last = sorted((chance.randint(0, len(seconds)), chance.randint(0, len(seconds))))
        window = [row for row in history if row["at"] in seconds[first:last]]
        found |= {fill.venue_fill_id for fill in read(mapping, *window)}
    assert found <= whole
    middle = chance.randint(0, len(seconds))
    for part in (seconds[: middle + 1], seconds[middle:]):
        found |= {fill.venue_fill_id for fill in read(mapping, *(row for row in history if row["at"] in part))}
    assert found == whole


@given(st.lists(SPOT, max_size=20), st.integers(0, 20))
def test_a_longer_export_keeps_the_ids_of_what_it_repeats_wherever_the_shorter_one_ended(
    spots: list[tuple[int, str, str]], cut: int
) -> None:
    history, mapping = rows_of(spots), mapping_of()
    shorter = [fill.venue_fill_id for fill in read(mapping, *history[:cut])]
    longer = [fill.venue_fill_id for fill in read(mapping, *history)]
    assert longer[: len(shorter)] == shorter
