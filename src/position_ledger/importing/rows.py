"""From the cells of a row to a command, or to the reason why not. Pure; rows must come in the order of the venue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.commands import RecordFill
from position_ledger.domain.identity import derived_fill_id, row_text
from position_ledger.domain.numbers import CONTEXT, fits, round18
from position_ledger.domain.vocabulary import Action, Environment, Side
from position_ledger.importing import reading
from position_ledger.importing.refusals import RowReason, RowRefused

if TYPE_CHECKING:
    from datetime import datetime

    from position_ledger.importing.mapping import FillMapping

__all__ = ["Candidate", "Cells", "Rows", "time_of"]

Cells = Mapping[str, str]
"""Column to text, spaces around it removed."""

IDENTITY: Final = ("account", "market", "side", "action", "quantity", "price", "time")
"""What tells fills apart that have no id: the words of the venue, before the mapping gives them a meaning. So another
mapping of the same row meets the recorded fill as a conflict, and never books it a second time."""
WORDS: Final = {"side": str.upper, "action": str.lower, "liquidity": str.lower}
"""How words of the ledger are written; a cell may write them in any case."""
TEXTS: Final = ("account", "market", "side", "action")
PLACES: Final = 18
"""Of every number in the ledger."""
SOURCE: Final = "import"
OPTIONAL: Final = ("currency", "fee_currency", "venue", "platform", "order_id", "liquidity")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that is a well-formed fill, and where it stands among the rows of its position with the same time."""

    number: int
    """1-based number of the row in the file, the header not counted."""
    cells: list[str]
    """The row as the file has it."""
    command: RecordFill
    ids: Mapping[tuple[str | None, str | None], int]
    """Venue and id of the fills of the same position and time in the file, and their place; grows while rows come."""
    place: int

    def is_before(self, venue: str | None, venue_fill_id: str | None) -> bool:
        """Whether the file has that fill before this one."""
        return self.ids.get((venue, venue_fill_id), self.place) < self.place


@dataclass(slots=True)
class Rows:
    """Reads rows one after the other, the oldest first; remembers those of the present time only."""

    mapping: FillMapping
    environment: Environment
    provenance: str
    """Which file it is; kept beside every event, together with the number of the row."""
    _at: datetime | None = None
    _seen: Counter[str] = field(default_factory=Counter)
    _ids: dict[tuple[Any, ...], dict[tuple[str | None, str | None], int]] = field(default_factory=dict)

    def read(self, number: int, cells: list[str], row: Cells, at: datetime) -> Candidate:
        """Read the next row. Raises `RowRefused` or `CommandRejected`; the row then takes no part in what follows."""
        if at != self._at:
            self._at, self._seen, self._ids = at, Counter(), {}
        identity = identity_of(row, self.mapping)
        ordinal = self._seen[identity]
        self._seen[identity] += 1
        command = self._command(number, row, at, identity, ordinal)
        key = (command.account, command.market, command.strategy, command.side)
        ids = self._ids.setdefault(key, {})
        place = len(ids)
        ids.setdefault((command.venue, command.venue_fill_id), place)
        return Candidate(number, cells, command, ids, place)

    def _command(self, number: int, row: Cells, at: datetime, identity: str, ordinal: int) -> RecordFill:
        mapping = self.mapping
        said = {field: _said(field, row, mapping) for field in (*TEXTS, *OPTIONAL, "strategy", "model")}
        quantity, action = _quantity_and_action(row, said["action"], mapping)
        price = _number("price", row, mapping, mapping.price.scale)
        _check_amount(row, quantity, price, mapping)
        fee = _number("fee", row, mapping, mapping.fee.scale, blank=Decimal(0))
        fields: dict[str, Any] = {name: said[name] or None for name in OPTIONAL}
        fields |= {name: said[name] for name in ("account", "market", "side")}
        fields |= {name: _row_id(said[name]) for name in ("strategy", "model")}
        return RecordFill(
            **fields,
            environment=self.environment,
            action=action,
            quantity=quantity,
            price=_own(price, said["side"], mapping),
            fee=fee,
            venue_fill_id=_fill_id(row, mapping) if mapping.columns.fill_id else derived_fill_id(identity, ordinal),
            effective_at=at,
            dust=mapping.dust,
            on_excess=mapping.on_excess,
            source=SOURCE,
            metadata=_rounded_texts(row, mapping, quantity=quantity, price=price, fee=fee) or None,
            correlation_id=self.provenance,
            causation_id=f"row:{number}",
        )


def time_of(row: Cells, mapping: FillMapping) -> datetime:
    """When the row's fill happened, in UTC. Raises `RowRefused`."""
    return reading.time(row[mapping.columns.time], mapping.time)


def identity_of(row: Cells, mapping: FillMapping) -> str:
    """Canonical text of the row for the id of a fill that has none: numbers by value, all else word by word."""
    columns, constants = mapping.columns.named, mapping.constants.given
    words = {name: row[columns[name]] if name in columns else constants.get(name, "") for name in IDENTITY}
    for name in ("quantity", "price"):
        words[name] = _canonical_number(name, words[name], mapping)
    return row_text(words)


def _canonical_number(name: str, text: str, mapping: FillMapping) -> str:
    try:
        value = reading.number(name, text, mapping.numbers)
    except RowRefused:
        return text
    return f"{value.normalize(CONTEXT):f}"


def _said(name: str, row: Cells, mapping: FillMapping) -> str:
    """What the row says about a text field, in the words of the ledger; empty: nothing."""
    column = mapping.columns.named.get(name)
    if column is None:
        return mapping.constants.given.get(name, "")
    text = row[column]
    meanings = mapping.values.get(name, {})
    if text in meanings:
        return meanings[text]
    return WORDS[name](text) if name in WORDS else text


def _number(name: str, row: Cells, mapping: FillMapping, scale: Decimal, blank: Decimal | None = None) -> Decimal:
    column = mapping.columns.named.get(name)
    text = row[column] if column else ""
    if not text and blank is not None:
        return blank
    return reading.scaled(reading.number(name, text, mapping.numbers), scale)


def _quantity_and_action(row: Cells, action: str, mapping: FillMapping) -> tuple[Decimal, Any]:
    quantity = _number("quantity", row, mapping, mapping.quantity.scale)
    if mapping.quantity.sign == "action":
        return quantity.copy_abs(), Action.SELL if quantity < 0 else Action.BUY
    return (quantity.copy_abs() if mapping.quantity.sign == "ignore" else quantity), action


def _check_amount(row: Cells, quantity: Decimal, price: Decimal, mapping: FillMapping) -> None:
    column = mapping.columns.amount
    if column is None or not row[column]:
        return
    amount = _number("amount", row, mapping, mapping.amount.scale).copy_abs()
    product = CONTEXT.multiply(quantity, price).copy_abs()
    if CONTEXT.subtract(product, amount).copy_abs() > mapping.amount.tolerance:
        raise RowRefused(RowReason.AMOUNT_MISMATCH, value=amount, held=product)


def _own(price: Decimal, side: str, mapping: FillMapping) -> Decimal:
    """The price of the contract of the row's side; one that is out of range is left for the domain to refuse."""
    if mapping.price.space == "own" or side != Side.NO or not 0 <= price <= 1:
        return price
    return Side.YES.price_on_other(round18(price))


def _row_id(text: str) -> int | str | None:
    """The id of a row of a reference table; what is none is left for the domain to refuse."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text  # noqa: PLR2004 - of a bigint


def _fill_id(row: Cells, mapping: FillMapping) -> str:
    """The venue's id; blank, so that the domain refuses it, if any part is missing."""
    parts = [row[column] for column in mapping.columns.fill_id_columns]
    return "/".join(parts) if all(parts) else ""


def _rounded_texts(row: Cells, mapping: FillMapping, **numbers: Decimal) -> dict[str, str]:
    """What the file said where the ledger keeps less: numbers of more than 18 places."""
    columns = mapping.columns.named
    lossy = [name for name, value in numbers.items() if name in columns and _is_lossy(value)]
    return {f"{name}_text": row[columns[name]] for name in lossy}


def _is_lossy(value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent < -PLACES and fits(value) and round18(value) != value
