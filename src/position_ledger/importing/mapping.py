"""Mapping files: how the columns of a CSV file become fills. TOML, checked completely before a file is read."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from position_ledger.domain.numbers import NotNegative, exact
from position_ledger.domain.rejections import Reason, shown
from position_ledger.domain.vocabulary import OnExcess
from position_ledger.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "FileLayout",
    "FillMapping",
    "MappingTable",
    "NumberReading",
    "TimeReading",
    "load",
    "load_mapping",
    "parse",
    "preset_names",
]

MAPPING_BYTES_MAX: Final = 1_000_000
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


MappingT = TypeVar("MappingT", bound=BaseModel)
Name = Annotated[str, Field(min_length=1)]
Scale = Annotated[Decimal, BeforeValidator(_scale)]
PositiveScale = Annotated[Decimal, BeforeValidator(_positive_scale)]
Zone = Annotated[ZoneInfo, BeforeValidator(_zone)]
Offset = Annotated[timedelta, BeforeValidator(_offset)]
Encoding = Annotated[str, AfterValidator(_encoding)]
TimeFormat = Annotated[str, AfterValidator(_format)]


class MappingTable(BaseModel):
    """A table of a mapping file: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class FileLayout(MappingTable):
    """How the text of the file is cut into rows and cells."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Encoding = "utf-8"
    """A byte order mark is taken off."""
    skip_lines: Annotated[int, Field(ge=0, le=1000)] = 0
    """Lines before the header."""
    columns: tuple[Name, ...] = ()
    """Names of the columns of a file without a header."""


class Columns(MappingTable):
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

    @cached_property
    def also_needed(self) -> dict[str, str]:
        """Columns beside those of `named` that the file must have, as messages call them."""
        return {f"fill_id ({name})": name for name in self.fill_id_columns}


class Constants(MappingTable):
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


class TimeReading(MappingTable):
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


class PriceReading(MappingTable):
    """What the price column quotes."""

    space: Literal["own", "yes"] = "own"
    """own: the contract of the row's side; yes: always YES, so that a NO costs 1 - price."""
    scale: PositiveScale = Decimal(1)
    """What one unit of the column is worth: 0.01 for cents and percent."""


class QuantityReading(MappingTable):
    """What the quantity column counts."""

    scale: PositiveScale = Decimal(1)
    sign: Literal["refuse", "action", "ignore"] = "refuse"
    """Of a negative quantity: a reject; or it is the action, below zero a sell; or it says nothing."""


class FeeReading(MappingTable):
    """What the fee column says; above zero is a charge, -1 as scale where it is a cash flow."""

    scale: Scale = Decimal(1)


class AmountCheck(MappingTable):
    """How far quantity * price may be from the amount column, whatever its sign."""

    scale: Scale = Decimal(1)
    tolerance: NotNegative = Decimal("0.01")


class NumberReading(MappingTable):
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


class FillMapping(MappingTable):
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


def preset_names(folder: str = "") -> list[str]:
    """Names of the mapping files that ship with the package."""
    return sorted(one.name.removesuffix(".toml") for one in _presets(folder).iterdir() if one.name.endswith(".toml"))


def load_mapping(source: str | Path) -> FillMapping:
    """Read a mapping of fills, see `load`."""
    return load(source, FillMapping)


def load(source: str | Path, kind: type[MappingT], folder: str = "") -> MappingT:
    """Read a preset of a folder by its name, or a mapping file by its path, which ends in ``.toml``.

    Raises:
        ConfigurationError: there is none, or it cannot be used; names the key and its value.
    """
    if isinstance(source, str) and not source.endswith(".toml"):
        known = preset_names(folder)
        if source not in known:
            msg = f"mapping {source!r} is no preset ({', '.join(known)}); name one, or a file that ends in .toml"
            raise ConfigurationError(msg)
        return parse(source, (_presets(folder) / f"{source}.toml").read_text(encoding="utf-8"), kind)
    path = Path(source)
    try:
        if path.stat().st_size > MAPPING_BYTES_MAX:
            raise ConfigurationError(f"mapping {path} has more than {MAPPING_BYTES_MAX} bytes; is it a mapping file?")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"mapping {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"mapping {path} is not UTF-8 at byte {error.start}; TOML must be") from error
    return parse(path.name, text, kind)


def parse_mapping(name: str, text: str) -> FillMapping:
    """Check the text of a mapping of fills, see `parse`."""
    return parse(name, text, FillMapping)


def parse(name: str, text: str, kind: type[MappingT]) -> MappingT:
    """Check the text of a mapping file. Raises `ConfigurationError` with the first thing that is wrong."""
    try:
        content = tomllib.loads(text, parse_float=Decimal)
        return kind.model_validate({"name": name, **content})
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"mapping {name} is no TOML: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"mapping {name}: {_problem(error.errors(include_url=False)[0])}") from error


def _problem(details: ErrorDetails) -> str:
    key = ".".join(str(part) for part in details["loc"])
    said = details["msg"].removeprefix("Value error, ")
    with suppress(KeyError):
        sentence = Reason.of(details["type"]).sentence
        return sentence.format(field=key, value=shown(details["input"]), command="a mapping")
    if details["type"] == "missing":
        return f"{key} is missing"
    if details["type"] == "extra_forbidden":
        return f"{key} is no key of a mapping; remove it or correct its name"
    if isinstance(details["input"], dict | BaseModel):
        return f"{key}: {said}" if key else said
    return f"{key} cannot be {shown(details['input'])}: {said[:1].lower()}{said[1:]}"


def _presets(folder: str) -> Any:
    presets = files("position_ledger.importing") / "presets"
    return presets / folder if folder else presets
