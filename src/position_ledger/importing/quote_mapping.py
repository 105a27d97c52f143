"""Mapping files of quotes: how the rows of a CSV file become quotes, statuses and settlements of markets."""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from position_ledger.domain.markets.commands import QUOTES
from position_ledger.domain.markets.vocabulary import MarketKind
from position_ledger.domain.numbers import NotNegative
from position_ledger.importing.mapping import FileLayout, Name, NumberReading, PositiveScale, TimeReading
from position_ledger.importing.mapping_files import load, presets

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["QuoteMapping", "load_quote_mapping", "quote_preset_names", "status_word"]

FOLDER: Final = "quotes"
WORDS: Final = ("open", "halted", "closed", "disputed", "voided")
WORDS_WITH_VALUE: Final = ("determined", "settled")
RowKind = Literal["quote", "status", "ignore"]


def status_word(text: str) -> tuple[str, Decimal | None]:
    """Read what a status means: one of the words, or «settled 1» with the outcome. Raises ``ValueError``."""
    word, _, value = text.partition(" ")
    if word in WORDS and not value:
        return word, None
    if word in WORDS_WITH_VALUE and value.replace(".", "", 1).isdecimal():
        return word, Decimal(value)
    raise ValueError(f"a status means {', '.join(WORDS)}, or {' or '.join(WORDS_WITH_VALUE)} and the outcome")


def _meaning(text: str) -> str:
    status_word(text)
    return text


Meaning = Annotated[str, AfterValidator(_meaning)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class QuoteColumns(_Table):
    """Which column of the file has what."""

    market: Name | None = None
    time: Name
    kind: Name | None = None
    """What the row is, in words that [kinds] explains; none: every row is a quote."""
    status: Name | None = None
    yes_price: Name | None = None
    no_price: Name | None = None
    yes_bid: Name | None = None
    yes_ask: Name | None = None
    no_bid: Name | None = None
    no_ask: Name | None = None
    last_price: Name | None = None

    @cached_property
    def named(self) -> dict[str, str]:
        """Field to column, of those that have one."""
        return {field: column for field, column in self if column is not None}

    @cached_property
    def quotes(self) -> dict[str, str]:
        """Quote to column, of those that have one."""
        return {name: column for name, column in self.named.items() if name in QUOTES}


class QuoteReading(_Table):
    """What the quoted columns say."""

    space: Literal["price", "odds"] = "price"
    """odds: decimal ones, so that a YES costs 1 / odds."""
    scale: PositiveScale = Decimal(1)
    """What one unit of the column is worth: 0.01 for cents and percent."""


class MarketTerms(_Table):
    """What a market is registered as when its first row comes; one that is registered keeps its terms."""

    prefix: str = ""
    """Put before what the file calls a market."""
    kind: MarketKind = MarketKind.BINARY
    currency: Name = "USD"
    platform: Name | None = None
    market_event: Name | None = None


class Meanings(_Table):
    """What the words of cells mean."""

    status: dict[str, Meaning] = Field(default_factory=dict)
    market: dict[str, Name] = Field(default_factory=dict)


class QuoteConstants(_Table):
    """Values that are the same for every row."""

    market: Name | None = None


class QuoteMapping(_Table):
    """One mapping file of quotes."""

    name: str
    """Of the preset or the file, for messages."""
    description: str = ""
    order: Literal["oldest_first", "newest_first", "by_time"]
    min_change: NotNegative = Decimal(0)
    """Quotes that all differ by less than this from the last recorded ones change nothing."""
    file: FileLayout = FileLayout()
    columns: QuoteColumns
    constants: QuoteConstants = QuoteConstants()
    kinds: dict[str, RowKind] = Field(default_factory=dict)
    values: Meanings = Meanings()
    time: TimeReading = TimeReading()
    price: QuoteReading = QuoteReading()
    numbers: NumberReading = NumberReading()
    market: MarketTerms = MarketTerms()

    @property
    def needed(self) -> dict[str, str]:
        """Every field, and the column that the file must have for it."""
        return self.columns.named

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.columns.market is None) is (self.constants.market is None):
            raise ValueError("market is needed once: as its column in [columns], or its value in [constants]")
        if not self.columns.quotes and self.columns.status is None:
            raise ValueError(f"no column is mapped that says anything: one of {', '.join(QUOTES)}, or status")
        if self.columns.kind is None and self.kinds:
            raise ValueError("[kinds] speaks of a kind that has no column")
        if "status" in self.kinds.values() and self.columns.status is None:
            raise ValueError("[kinds] has rows of a status, which has no column")
        if self.price.space == "odds" and not self.market.kind.is_binary:
            raise ValueError('price.space = "odds" makes prices of binary markets only')
        return self


def quote_preset_names() -> list[str]:
    """Names of the mapping files for quotes that ship with the package."""
    return presets(FOLDER)


def load_quote_mapping(source: str | Path) -> QuoteMapping:
    """Read a preset by its name, or a mapping file by its path, which ends in ``.toml``.

    Raises:
        ConfigurationError: there is none, or it cannot be used; names the key and its value.
    """
    return load(source, QuoteMapping, FOLDER)
