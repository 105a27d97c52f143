"""From pydantic's errors to ours: a field refuses with a `Reason`, and the first of several is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic_core import PydanticCustomError

from position_ledger.domain.rejections import CommandRejected, FloatRefused, Reason, shown

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["refusal", "rejected"]


def refusal(reason: Reason, value: object) -> PydanticCustomError:
    """Say in pydantic's terms why a field is refused; `rejected` turns it into a `CommandRejected`."""
    return PydanticCustomError(reason.code, "{value}", {"value": shown(value)})


_BY_PYDANTIC_TYPE: Final = {"missing": Reason.FIELD_MISSING, "extra_forbidden": Reason.FIELD_UNKNOWN}
_BY_FIELD: Final = {
    "side": Reason.SIDE_UNKNOWN,
    "action": Reason.ACTION_UNKNOWN,
    "environment": Reason.ENVIRONMENT_UNKNOWN,
    "trailing_stop": Reason.TRAILING_STOP_INVALID,
}


def rejected(command: type[BaseModel], error: ValidationError) -> CommandRejected:
    """Turn what pydantic collected into the first reason in the order of precedence, with field and value."""
    details = min(error.errors(include_url=False), key=lambda detail: _reason_of(detail).rank)
    reason = _reason_of(details)
    value = details.get("ctx", {}).get("value", details["input"])
    field = ".".join(str(part) for part in details["loc"])
    if not field and reason is Reason.FIELD_MISSING:
        field = value
    kind = FloatRefused if reason is Reason.FLOAT_NOT_ALLOWED else CommandRejected
    return kind(reason, command, field=field, value=value, problem=_problem(reason, details))


def _reason_of(details: ErrorDetails) -> Reason:
    code = details["type"]
    try:
        return Reason.of(code)
    except KeyError:
        field = str(details["loc"][0]) if details["loc"] else ""
        return _BY_PYDANTIC_TYPE.get(code) or _BY_FIELD.get(field, Reason.FIELD_INVALID)


def _problem(reason: Reason, details: ErrorDetails) -> str:
    if reason is Reason.FIELD_INVALID and details["type"] == reason.code:
        return "it must be the positive whole number of a row"
    if reason is Reason.METADATA_INVALID:
        return "it is not an object of plain JSON values"
    return details["msg"].lower()
