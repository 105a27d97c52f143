"""Mapping files: how the columns of a CSV file become fills. TOML, checked completely before a file is read."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from position_ledger.domain.numbers import NotNegative, exact
from position_ledger.domain.vocabulary import OnExcess
from position_ledger.importing.mapping_files import load, parse, presets

__all__ = ["FillMapping", "load_mapping", "preset_names"]

ISO: Final = "iso"
EPOCHS: Final = {
    "epoch_s": Decimal(1_000_000),
    "epoch_ms": Decimal(1000),
    "epoch_us": Decimal(1),
    "epoch_ns": Decimal("0.001"),
}
"""Formats that count from 1970-01-01 UTC, and how many microseconds their unit has."""


def _scale(value: object) -> Decimal:
    number = exact(value)
    if not number:
        raise ValueError("a scale must not be 0")
    return number


def _positive_scale(value: object) -> Decimal:
    number = _scale(value)
    if number < 0:
        raise ValueError("this scale must be greater than 0")
    return number


def _zone(value: object) -> ZoneInfo:
    if not isinstance(value, str):
        raise ValueError("give the name of an IANA time zone, such as America/New_York")  # noqa: TRY004 - for pydantic
    try:
        return ZoneInfo(value)
    except (KeyError, OSError, ValueError):
        raise ValueError("it is no IANA time zone; give one such as America/New_York or UTC") from None


def _offset(value: object) -> timedelta:
    text = value if isinstance(value, str) else ""
    sign, hours, minutes = text[:1], text[1:3], text[4:]
    well_formed = (
        sign in {"+", "-"} and text[3:4] == ":" and (hours + minutes).isdecimal() and len(text) == len("+hh:mm")
    )
    if not well_formed or int(hours) > 14 or int(minutes) > 59:  # noqa: PLR2004 - the limits of offsets
        raise ValueError('give an offset from UTC such as "-05:00"')
    size = timedelta(hours=int(hours), minutes=int(minutes))
    return -size if sign == "-" else size


def _encoding(value: str) -> str:
    try:
        "a".encode(value)
    except (LookupError, UnicodeError):
        raise ValueError("it is no text encoding; utf-8 and cp1252 are the usual ones") from None
    return value


def _format(value: str) -> str:
    if value == ISO or value in EPOCHS:
        return value
    if "%" not in value:
        raise ValueError(f"give iso, {', '.join(EPOCHS)}, or a format of strptime such as %Y-%m-%d %H:%M:%S")
    if "%Z" in value and value.split().count("%Z") != 1:
        raise ValueError("%Z must stand once, between spaces")
    return value


Name = Annotated[str, Field(min_length=1)]
Scale = Annotated[Decimal, BeforeValidator(_scale)]
PositiveScale = Annotated[Decimal, BeforeValidator(_positive_scale)]
Zone = Annotated[ZoneInfo, BeforeValidator(_zone)]
Offset = Annotated[timedelta, BeforeValidator(_offset)]
Encoding = Annotated[str, AfterValidator(_encoding)]
TimeFormat = Annotated[str, AfterValidator(_format)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class FileLayout(_Table):
    """How the text of the file is cut into rows and cells."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Encoding = "utf-8"
    """A byte order mark is taken off."""
    skip_lines: Annotated[int, Field(ge=0, le=1000)] = 0
    """Lines before the header."""
    columns: tuple[Name, ...] = ()
    """Names of the columns of a file without a header."""


class Columns(_Table):
    """Which column of the file has which field of a fill."""

    account: Name | None = None
    market: Name | None = None
    side: Name | None = None
    action: Name | None = None
    quantity: Name
    price: Name
    time: Name
    amount: Name | None = None
    """Compared with quantity * price; never booked."""
    fee: Name | None = None
    fee_currency: Name | None = None
    currency: Name | None = None
    venue: Name | None = None
    platform: Name | None = None
    fill_id: Name | tuple[Name, ...] | None = None
    """The venue's id of the execution; several columns are joined by a slash."""
    order_id: Name | None = None
    liquidity: Name | None = None
    strategy: Name | None = None
    model: Name | None = None

    @cached_property
    def named(self) -> dict[str, str]:
        """Field to column, of those that are mapped to one; the id of the fill apart."""
        return {field: column for field, column in self if isinstance(column, str) and field != "fill_id"}

    @cached_property
    def fill_id_columns(self) -> tuple[str, ...]:
        """The columns that make the venue's id; none: the file has no ids."""
        return (self.fill_id,) if isinstance(self.fill_id, str) else self.fill_id or ()


class Constants(_Table):
    """Values that are the same for every row."""

    account: Name | None = None
    market: Name | None = None
    side: Name | None = None
    action: Name | None = None
    fee_currency: Name | None = None
    currency: Name | None = None
    venue: Name | None = None
    platform: Name | None = None
    liquidity: Name | None = None
    strategy: Annotated[int, Field(gt=0, strict=True)] | None = None
    model: Annotated[int, Field(gt=0, strict=True)] | None = None

    @cached_property
    def given(self) -> dict[str, str]:
        """Field to value, as the text that a cell would have."""
        return {field: str(value) for field, value in self if value is not None}


class TimeReading(_Table):
    """How the time of a row is read."""

    formats: Annotated[tuple[TimeFormat, ...], Field(min_length=1)] = (ISO,)
    """Tried in this order."""
    zone: Zone | None = None
    """Of times that do not say their offset."""
    ambiguous: Literal["refuse", "earlier", "later"] = "refuse"
    """Which one is meant in the hour that clocks repeat, when the text does not tell."""
    abbreviations: dict[str, Offset] = {}
    """Offsets of zone abbreviations, taken literally instead of being looked up in the zone."""

    @model_validator(mode="after")
    def _zone_known(self) -> Self:
        for text in self.formats:
            said = text in EPOCHS or text == ISO or "%z" in text or ("%Z" in text and self.abbreviations)
            if not said and self.zone is None:
                raise ValueError(f"format {text!r} does not tell the offset from UTC, so time.zone must be given")
        return self


class PriceReading(_Table):
    """What the price column quotes."""

    space: Literal["own", "yes"] = "own"
    """own: the contract of the row's side; yes: always YES, so that a NO costs 1 - price."""
    scale: PositiveScale = Decimal(1)
    """What one unit of the column is worth: 0.01 for cents and percent."""


class QuantityReading(_Table):
    """What the quantity column counts."""

    scale: PositiveScale = Decimal(1)
    sign: Literal["refuse", "action", "ignore"] = "refuse"
    """Of a negative quantity: a reject; or it is the action, below zero a sell; or it says nothing."""


class FeeReading(_Table):
    """What the fee column says; above zero is a charge, -1 as scale where it is a cash flow."""

    scale: Scale = Decimal(1)


class AmountCheck(_Table):
    """How far quantity * price may be from the amount column, whatever its sign."""

    scale: Scale = Decimal(1)
    tolerance: NotNegative = Decimal("0.01")


class NumberReading(_Table):
    """How numbers are written."""

    decimal: Literal[".", ","] = "."
    thousands: Annotated[str, Field(max_length=1)] = ""
    """Separator of groups of three digits; empty: there is none, and a number with one is a reject."""
    strip: tuple[Name, ...] = ()
    """Symbols taken off either end: $, %, ¢ …"""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if self.thousands == self.decimal or self.thousands.isalnum() or self.thousands in {"-", "+"}:
            raise ValueError("thousands must be another sign than decimal, and no letter, digit, + or -")
        return self


class FillMapping(_Table):
    """One mapping file."""

    name: str
    """Of the preset or the file, for messages."""
    description: str = ""
    order: Literal["oldest_first", "newest_first", "by_time"]
    """Rows are taken by their time; this says which of two with the same time was first: newest_first the lower one,
    else the upper one. by_time: the rows are in no order of time, which is then not checked."""
    dust: NotNegative = Decimal(0)
    on_excess: OnExcess = OnExcess.REFUSE
    file: FileLayout = FileLayout()
    columns: Columns
    constants: Constants = Constants()
    values: dict[str, dict[str, str]] = {}
    """Per field: what a cell says, and what it means."""
    time: TimeReading = TimeReading()
    price: PriceReading = PriceReading()
    quantity: QuantityReading = QuantityReading()
    fee: FeeReading = FeeReading()
    amount: AmountCheck = AmountCheck()
    numbers: NumberReading = NumberReading()

    @property
    def needed(self) -> dict[str, str]:
        """Every field, and the column that the file must have for it."""
        return {**self.columns.named, **{f"fill_id ({name})": name for name in self.columns.fill_id_columns}}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        columns, constants = self.columns.named, self.constants.given
        for field in columns.keys() & constants.keys():
            raise ValueError(f"{field} is both in [columns] and in [constants]; keep one of them")
        needed = ["account", "market", "side"] + ["action"] * (self.quantity.sign != "action")
        for field in needed:
            if field not in columns and field not in constants:
                raise ValueError(f"{field} is missing; name its column in [columns] or its value in [constants]")
        if self.quantity.sign == "action" and ("action" in columns or "action" in constants):
            raise ValueError('quantity.sign = "action" takes the action from the sign, so no action may be mapped')
        for field in self.values.keys() - (columns.keys() - {"quantity", "price", "time", "amount", "fee"}):
            raise ValueError(f"values.{field} speaks of no text field that has a column")
        return self


def preset_names() -> list[str]:
    """Names of the mapping files for fills that ship with the package."""
    return presets()


def load_mapping(source: str | Path) -> FillMapping:
    """Read a preset by its name, or a mapping file by its path, which ends in ``.toml``.

    Raises:
        ConfigurationError: there is none, or it cannot be used; names the key and its value.
    """
    return load(source, FillMapping)


def parse_mapping(name: str, text: str) -> FillMapping:
    """Check the text of a mapping file. Raises `ConfigurationError` with the first thing that is wrong."""
    return parse(name, text, FillMapping)
