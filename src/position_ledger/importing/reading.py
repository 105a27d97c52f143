"""Reading single cells: numbers without any loss, and times of every usual form. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from position_ledger.domain.numbers import CONTEXT
from position_ledger.importing.mapping import EPOCHS, ISO, NumberReading, TimeReading
from position_ledger.importing.refusals import RowReason, RowRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

__all__ = ["number", "scaled", "time"]

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
"""No venue's export has a fill before it; a time that has was read in the wrong unit."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DIGITS_MAX: Final = 200
PLAIN: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
MINUS: Final = {"-", "\N{MINUS SIGN}"}
UTC_NAMES: Final = {"UTC", "GMT", "Z"}


def number(field: str, text: str, reading: NumberReading) -> Decimal:
    """The exact number that a cell says, every digit of it. Raises `RowRefused` (number_unreadable)."""
    plain = _plain(_bare(text, reading.strip), reading)
    if len(text) > DIGITS_MAX or plain is None or not PLAIN.fullmatch(plain):
        raise RowRefused(RowReason.NUMBER_UNREADABLE, field=field, value=text)
    return Decimal(plain)


def scaled(value: Decimal, scale: Decimal) -> Decimal:
    """The number in units of the ledger."""
    return value if scale == 1 else CONTEXT.multiply(value, scale)


def _bare(text: str, symbols: tuple[str, ...]) -> str:
    """The text without symbols and spaces around it; a sign may stand before a symbol, as in -$3."""
    sign, rest = ("-", text[1:]) if text[:1] in MINUS else ("", text)
    for symbol in symbols:
        rest = rest.strip().removeprefix(symbol).removesuffix(symbol)
    return sign + rest.strip()


def _plain(text: str, reading: NumberReading) -> str | None:
    """The text with groups joined and a decimal point; None if its groups are not of three digits."""
    whole, point, places = text.partition(reading.decimal)
    if reading.thousands and reading.thousands in whole:
        first, *groups = whole.lstrip("+-").split(reading.thousands)
        if not 0 < len(first) <= 3 or any(len(group) != 3 for group in groups):  # noqa: PLR2004 - thousands
            return None
        whole = whole.replace(reading.thousands, "")
    if reading.decimal != "." and "." in whole + places:
        return None
    return whole + ("." if point else "") + places


def time(text: str, reading: TimeReading) -> datetime:
    """The moment that a cell says, in UTC, to the microsecond; finer digits are cut off. Raises `RowRefused`."""
    for form in reading.formats:
        moment = _read(text, form, reading)
        if moment is not None:
            if moment < EARLIEST:
                raise RowRefused(RowReason.TIME_IMPLAUSIBLE, value=text, held=moment.isoformat())
            return moment
    raise RowRefused(RowReason.TIME_UNREADABLE, value=text, held=", ".join(reading.formats))


def _read(text: str, form: str, reading: TimeReading) -> datetime | None:
    """The moment, None if the text is not of this form."""
    if form in EPOCHS:
        return _from_epoch(text, EPOCHS[form])
    try:
        if form == ISO:
            return _aware(datetime.fromisoformat(text), text, reading)
        if "%Z" in form:
            return _named_zone(text, form, reading)
        return _aware(datetime.strptime(text, form), text, reading)  # noqa: DTZ007 - made aware at once
    except (ValueError, OverflowError):
        return None


def _from_epoch(text: str, unit_us: Decimal) -> datetime | None:
    if not PLAIN.fullmatch(text):
        return None
    try:
        return EPOCH + timedelta(microseconds=int(CONTEXT.multiply(Decimal(text), unit_us)))
    except (OverflowError, InvalidOperation):
        return None


def _named_zone(text: str, form: str, reading: TimeReading) -> datetime | None:
    """Read a text with an abbreviation such as EST, which means the offset that its zone calls so at that time."""
    forms, words = form.split(), text.split()
    place = forms.index("%Z")
    if len(forms) != len(words):
        return None
    word = words.pop(place)
    del forms[place]
    naive = datetime.strptime(" ".join(words), " ".join(forms))  # noqa: DTZ007 - made aware below
    if word in reading.abbreviations:
        return (naive - reading.abbreviations[word]).replace(tzinfo=UTC)
    if word.upper() in UTC_NAMES:
        return naive.replace(tzinfo=UTC)
    if reading.zone is None:
        raise RowRefused(RowReason.TIME_WITHOUT_ZONE, value=text)
    for local in _instants(naive, reading.zone):
        if local.tzname() == word:
            return local.astimezone(UTC)
    raise RowRefused(RowReason.TIME_NOT_IN_ZONE, value=text, held=reading.zone.key)


def _aware(moment: datetime, text: str, reading: TimeReading) -> datetime:
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    if reading.zone is None:
        raise RowRefused(RowReason.TIME_WITHOUT_ZONE, value=text)
    instants = list(_instants(moment, reading.zone))
    if not instants:
        raise RowRefused(RowReason.TIME_NOT_IN_ZONE, value=text, held=reading.zone.key)
    if len(instants) > 1 and reading.ambiguous == "refuse":
        raise RowRefused(RowReason.TIME_AMBIGUOUS, value=text, held=reading.zone.key)
    return instants[-1 if reading.ambiguous == "later" else 0].astimezone(UTC)


def _instants(naive: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The moments at which clocks of the zone show this time, earlier first: one, two, or none."""
    earlier, later = (naive.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    for local in (earlier,) if earlier.utcoffset() == later.utcoffset() else (earlier, later):
        if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == naive:
            yield local
