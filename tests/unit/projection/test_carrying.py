"""Which amounts a load leaves as text: those that folds only carry. Whatever else a fold does with one, it gets a decimal."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from position_ledger import Recorded, Row, replace
from position_ledger.projection.carrying.amounts import carried_amounts, codec_of_load
from position_ledger.projection.definition import load_projections
from position_ledger.settings import load_settings
from position_ledger.store.codec import amounts_of
from tests.support.marking import EMPTY, LIMIT, MarkRow, carried, projection

SEEN: list[Any] = []
BOTH = {"price", "unrealized_pnl"}


# Carried


def given_by_name(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl)


def given_by_place(row: Any, event: Any) -> Any:
    return MarkRow(event.body.price, event.body.unrealized_pnl)


def through_names(row: Any, event: Any) -> Any:
    body = event.body
    price, pnl = body.price, body.unrealized_pnl
    last: Decimal = price
    return MarkRow(price=last, pnl=pnl, note=body.source)


def columns(body: Any) -> dict[str, Any]:
    """What a mark gives."""
    return {"price": body.price, **more(body)}


def more(body: Any) -> dict[str, Any]:
    return {"pnl": body.unrealized_pnl}


def through_functions(row: Any, event: Any) -> Any:
    return MarkRow(**columns(event.body))


def replaced(row: Any, event: Any) -> Any:
    if row is None:
        return MarkRow(price=event.body.price, pnl=None)
    return replace(row, pnl=event.body.unrealized_pnl)


def on_a_constant_row(row: Any, event: Any) -> Any:
    before = EMPTY if row is None else row
    return replace(before, price=event.body.price, pnl=event.body.unrealized_pnl)


def from_column_to_column(row: Any, event: Any) -> Any:
    before = None if row is None else row.price
    return MarkRow(price=event.body.price, pnl=before or None) if before is None else replace(row, price=row.pnl)


def where_it_is_none(row: Any, event: Any) -> Any:
    given = event.body.unrealized_pnl
    return MarkRow(price=event.body.price, pnl=row.pnl if given is None and row is not None else given)


def one_of_two(row: Any, event: Any) -> Any:
    fold = given_by_name if event.body.source == "manual" else through_functions
    return fold(row, event)


def by_getattr(row: Any, event: Any) -> Any:
    return MarkRow(price=getattr(event.body, "price"), pnl=getattr(event.body, "pnl", None))  # noqa: B009


def refusing(row: Any, event: Any) -> Any:
    assert event.seq > 0
    if row is not None and not event.body.source:
        raise ValueError(f"no source at {event.body.price}")
    return given_by_name(row, event)


@pytest.mark.parametrize(
    "fold",
    [
        given_by_name,
        given_by_place,
        through_names,
        through_functions,
        replaced,
        on_a_constant_row,
        where_it_is_none,
        one_of_two,
        by_getattr,
        refusing,
    ],
)
def test_what_only_becomes_the_value_of_a_column_is_carried(fold: Any) -> None:
    assert carried(fold) == BOTH


# Used


def added(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price + 1, pnl=event.body.unrealized_pnl)


def negated(row: Any, event: Any) -> Any:
    return MarkRow(price=-event.body.price, pnl=event.body.unrealized_pnl)


def compared(row: Any, event: Any) -> Any:
    return MarkRow(price=max(event.body.price, LIMIT), pnl=event.body.unrealized_pnl)


def same_as_before(row: Any, event: Any) -> Any:
    if row is not None and row.price == event.body.price:
        return row
    return MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl)


def is_it(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl, note=event.body.price is LIMIT)


def true_or_not(row: Any, event: Any) -> Any:
    if event.body.price:
        return MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl)
    return row


def this_or_that(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price or LIMIT, pnl=event.body.unrealized_pnl)


def negation(row: Any, event: Any) -> Any:
    nothing = not event.body.price
    return MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl, note=nothing)


def written(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl, note=f"at {event.body.price}")


def of_a_library(row: Any, event: Any) -> Any:
    return MarkRow(price=max(event.body.price, LIMIT), pnl=event.body.unrealized_pnl)


def by_a_method(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price.quantize(LIMIT), pnl=event.body.unrealized_pnl)


def a_property(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price.real, pnl=event.body.unrealized_pnl)


def in_a_list(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl, note=[event.body.price])


def in_a_loose_column(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl, note=event.body.price)


def out_of_a_dict(row: Any, event: Any) -> Any:
    return MarkRow(price={"price": event.body.price}["price"], pnl=event.body.unrealized_pnl)


def as_a_key(row: Any, event: Any) -> Any:
    return MarkRow(price=LIMIT, pnl=event.body.unrealized_pnl, note={event.body.price: 1})


def kept_elsewhere(row: Any, event: Any) -> Any:
    SEEN.append(event.body.price)
    return MarkRow(price=SEEN[0], pnl=event.body.unrealized_pnl)


def added_in(body: Any) -> Any:
    return body.price * 2


def by_an_own_function(row: Any, event: Any) -> Any:
    return MarkRow(price=added_in(event.body), pnl=event.body.unrealized_pnl)


def walked_over(row: Any, event: Any) -> Any:
    return MarkRow(price=sum(one for one in [event.body.price]), pnl=event.body.unrealized_pnl)


def its_own_type(row: Any, event: Any) -> Any:
    return MarkRow(price=Decimal(event.body.price), pnl=event.body.unrealized_pnl)


ON_THE_PRICE = [
    added,
    negated,
    compared,
    same_as_before,
    is_it,
    true_or_not,
    this_or_that,
    negation,
    written,
    of_a_library,
    by_a_method,
    a_property,
    in_a_list,
    in_a_loose_column,
    out_of_a_dict,
    as_a_key,
    kept_elsewhere,
    by_an_own_function,
    walked_over,
    its_own_type,
]


@pytest.mark.parametrize("fold", ON_THE_PRICE)
def test_an_amount_that_anything_is_done_with_is_used(fold: Any) -> None:
    assert carried(fold) == {"unrealized_pnl"}


def looped(row: Any, event: Any) -> Any:
    for name in ("price",):
        assert name
    return given_by_name(row, event)


def tried(row: Any, event: Any) -> Any:
    try:
        return given_by_name(row, event)
    finally:
        SEEN.clear()


def matched(row: Any, event: Any) -> Any:
    match event.body:
        case _:
            return given_by_name(row, event)


def with_a_lambda(row: Any, event: Any) -> Any:
    made: Callable[[], Any] = lambda: event.body.price  # noqa: E731
    return MarkRow(price=made(), pnl=event.body.unrealized_pnl)


def with_stars(row: Any, event: Any) -> Any:
    given = dict(columns(event.body))
    return MarkRow(**given)


def set_aside(row: Any, event: Any) -> Any:
    SEEN[:] = [event.body.price]
    return given_by_name(row, event)


def nested(row: Any, event: Any) -> Any:
    def inner() -> Any:
        return event.body.price * 2

    return MarkRow(price=inner(), pnl=event.body.unrealized_pnl)


def rows_compared(row: Any, event: Any) -> Any:
    made = given_by_name(row, event)
    return row if made == row else made


def event_given_away(row: Any, event: Any) -> Any:
    SEEN.append(event)
    return given_by_name(row, event)


def body_given_away(row: Any, event: Any) -> Any:
    SEEN.append(msgspec.structs.astuple(event.body))
    return given_by_name(row, event)


def behind_a_star(row: Any, event: Any) -> Any:
    """Its price is in the third column."""
    return MarkRow(*(LIMIT, event.body.unrealized_pnl), event.body.price)


def for_ever(row: Any, event: Any) -> Any:
    return for_ever(row, event)


def decorated(fold: Any) -> Any:
    @functools.wraps(fold)
    def wrapper(row: Any, event: Any) -> Any:
        return fold(row, event)

    return wrapper


def any_arguments(*arguments: Any) -> Any:
    return given_by_name(*arguments)


@pytest.mark.parametrize(
    "fold",
    [
        looped,
        tried,
        matched,
        with_a_lambda,
        with_stars,
        behind_a_star,
        set_aside,
        nested,
        rows_compared,
        event_given_away,
        body_given_away,
        for_ever,
        any_arguments,
        decorated(given_by_name),
        functools.partial(given_by_name),
        lambda _, event: MarkRow(price=event.body.price, pnl=event.body.unrealized_pnl),
    ],
)
def test_of_what_is_not_understood_everything_is_used(fold: Any) -> None:
    assert carried(fold) == set()


def exits_that_carry(row: Any, event: Any) -> Any:
    return replace(row, pnl=row.price)


def exits_that_calculate(row: Any, event: Any) -> Any:
    return replace(row, price=row.price + 1)


def exits_that_ask(row: Any, event: Any) -> Any:
    return replace(row, note=bool(row.pnl) or not row.pnl)


def exits_that_nobody_understands(row: Any, event: Any) -> Any:
    while row.price is None:
        pass
    return row


def test_a_column_that_another_fold_uses_is_used_where_it_comes_from() -> None:
    assert carried(given_by_name, exits_that_carry) == BOTH
    assert carried(given_by_name, exits_that_calculate) == {"unrealized_pnl"}
    assert carried(given_by_name, exits_that_ask) == {"price"}
    assert carried(given_by_name, exits_that_nobody_understands) == set()


def test_a_column_that_takes_over_another_hands_on_what_is_done_with_it() -> None:
    assert carried(from_column_to_column) == {"unrealized_pnl"}, "its price is asked whether it is true"


def test_a_key_made_of_an_amount_uses_it() -> None:
    assert carried(given_by_name, key=lambda event: f"{event.body.price}") == set()
    assert carried(given_by_name, key=priced) == {"unrealized_pnl"}


def priced(event: Recorded[Any]) -> str:
    return str(event.body.price)


class Looks(Row, frozen=True, gc=False):
    """Sees its values when it is made."""

    price: Decimal
    pnl: Decimal | None = None

    def __post_init__(self) -> None:
        assert self.price < 1


class Unresolved(Row, frozen=True, gc=False):
    """Its annotations are of nothing that is there."""

    price: Nothing  # type: ignore[name-defined]  # noqa: F821


def of_looks(row: Any, event: Any) -> Any:
    return Looks(price=event.body.price)


def test_a_row_that_looks_at_its_values_or_cannot_be_read_leaves_nothing_as_text() -> None:
    assert carried(of_looks, row=Looks) == set()
    assert carried(given_by_name, row=Unresolved) == set()


def test_a_model_in_a_loose_column_is_used() -> None:
    found = carried_amounts(projection(with_a_stop))["position.marked"]
    assert not [path for path in found if path[0] == "trailing_stop"]
    assert ("price",) in found


def with_a_stop(row: Any, event: Any) -> Any:
    return MarkRow(price=event.body.price, pnl=None, note=event.body.trailing_stop)


SHIPPED = {one.table: one for one in load_projections("projections")}
USED = {
    "positions": {"trailing_stop", "figures.quantity"},
    "trades": {"now.quantity", "now.busted_quantity"},
}
"""A stop goes whole into a column of JSON; a transfer asks whether anything is left, a correction whether all is gone."""


@pytest.mark.parametrize("table", SHIPPED)
def test_the_shipped_definitions_carry_nearly_every_amount(table: str) -> None:
    found = carried_amounts(SHIPPED[table])
    used = {
        ".".join(path if path[0] != "trailing_stop" else path[:1])
        for event in SHIPPED[table].folds
        for path in amounts_of(event) - found[event.TOPIC]
    }
    assert used == USED.get(table, set())


def test_an_amount_that_is_no_text_in_the_log_is_read_as_before() -> None:
    codec = codec_of_load(projection(given_by_name), load_settings())
    body = codec.decode_struct("position.marked", b'{"price":0.5,"unrealized_pnl":"1.50"}')
    assert (body.price, body.unrealized_pnl) == (Decimal("0.5"), Decimal("1.50"))
    body = codec.decode_struct("position.marked", b'{"price":"0.5","unrealized_pnl":"1.50"}')
    assert (body.price, body.unrealized_pnl) == ("0.5", "1.50")
    exact = codec_of_load(projection(given_by_name), load_settings(rebuild_leaves_text=False))
    body = exact.decode_struct("position.marked", b'{"price":"0.5","unrealized_pnl":"1.50"}')
    assert (body.price, body.unrealized_pnl) == (Decimal("0.5"), Decimal("1.50")), "where that is switched off"
