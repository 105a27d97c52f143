"""Field types of commands that are not numbers: text, time, ids and metadata, each refusing with a `Reason`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from position_ledger.domain.refusals import refusal
from position_ledger.domain.rejections import Reason

__all__ = ["CommandId", "Count", "Handle", "Metadata", "Moment", "PositionRef", "RowId", "RowRef", "Text", "TradeRef"]

_CHARACTERS_MAX: Final = 1000
_METADATA_CHARACTERS_MAX: Final = 100_000
_ROW_ID_MAX: Final = 2**63 - 1
_COUNT_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Handle:
    """A name for a position that an earlier command of the same batch opens, before it has an id."""

    name: str


def text(value: object) -> str:
    """Check text that PostgreSQL can keep and a person can see: not blank, no NUL, no lone surrogate, not endless."""
    if not isinstance(value, str):
        raise refusal(Reason.TEXT_INVALID, value)
    if not value or value.isspace():
        raise refusal(Reason.TEXT_BLANK, value)
    if len(value) > _CHARACTERS_MAX or not _is_storable(value):
        raise refusal(Reason.TEXT_INVALID, value)
    return str(value)


def _is_storable(value: str) -> bool:
    return (value.isascii() and "\x00" not in value) or not any(_is_unstorable(character) for character in value)


def _is_unstorable(character: str) -> bool:
    return character == "\x00" or "\ud800" <= character <= "\udfff"


def _command_id(value: object) -> str:
    return text(str(value) if isinstance(value, UUID) else value)


def _row_id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _ROW_ID_MAX:
        raise refusal(Reason.FIELD_INVALID, value)
    return int(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _COUNT_MAX:
        raise refusal(Reason.COUNT_INVALID, value)
    return int(value)


def _row_ref(value: object) -> str | int:
    return text(value) if isinstance(value, str) else _row_id(value)


def _moment(value: object) -> datetime:
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise refusal(Reason.TIME_INVALID, value) from None
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise refusal(Reason.TIME_INVALID, value)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise refusal(Reason.TIME_INVALID, value) from None


def _metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise refusal(Reason.METADATA_INVALID, value)
    try:
        written = json.dumps(value, allow_nan=False)
        kept: dict[str, Any] = json.loads(written)
    except (TypeError, ValueError, RecursionError):
        raise refusal(Reason.METADATA_INVALID, value) from None
    if kept != value or len(written) > _METADATA_CHARACTERS_MAX or _has_unstorable_escape(written):
        raise refusal(Reason.METADATA_INVALID, value)
    return kept


def _has_unstorable_escape(written: str) -> bool:
    return "\\u" in written and not _is_storable_json(json.loads(written))


def _is_storable_json(value: Any) -> bool:
    if isinstance(value, str):
        return _is_storable(value)
    if isinstance(value, dict):
        return all(_is_storable_json(part) for pair in value.items() for part in pair)
    return not isinstance(value, list) or all(_is_storable_json(part) for part in value)


def _position_ref(value: object) -> str | int | Handle:
    if isinstance(value, Handle):
        return value
    if isinstance(value, dict) and value.keys() == {"handle"}:
        return Handle(text(value["handle"]))
    return text(value) if isinstance(value, str) else _row_id(value)


def _written_ref(value: str | int | Handle) -> str | int | dict[str, str]:
    return {"handle": value.name} if isinstance(value, Handle) else value


@dataclass(frozen=True, slots=True)
class _Ref:
    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _position_ref,
            serialization=core_schema.plain_serializer_function_ser_schema(_written_ref, when_used="json"),
        )


def _trade_ref(value: object) -> str:
    return text(value) if isinstance(value, str) else f"TRD-{_row_id(value)}"


Text = Annotated[str, BeforeValidator(text)]
CommandId = Annotated[str, BeforeValidator(_command_id)]
"""A caller's id of a command, for ever; a UUID is kept as its text."""
RowId = Annotated[int, BeforeValidator(_row_id)]
"""Id of a row of a reference table."""
Count = Annotated[int, BeforeValidator(_count)]
"""A whole number from 0, such as a score."""
RowRef = Annotated[str | int, BeforeValidator(_row_ref)]
"""EDGE-7, or the number of any version of what is meant."""
Moment = Annotated[datetime, BeforeValidator(_moment)]
"""A moment with a zone, kept in UTC."""
Metadata = Annotated[dict[str, Any], BeforeValidator(_metadata)]
"""Whatever the caller wants to keep, as JSON; a copy."""
PositionRef = Annotated[str | int | Handle, _Ref()]
"""POS-17, any surrogate id of the position, or the handle of a position opened earlier in the same batch."""
TradeRef = Annotated[str, BeforeValidator(_trade_ref)]
"""TRD-17, or 17: the number of the event that recorded the fill."""
