"""What every command is: checked whole when it is constructed, and immutable from then on."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from position_ledger.domain.fields import CommandId, Moment, Text
from position_ledger.domain.refusals import rejected

__all__ = ["Command"]


class Command(BaseModel):
    """What every command may carry. Immutable; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    command_id: CommandId | None = None
    """Repeating the same content under the same id returns the first result; other content is a conflict."""
    actor: Text | None = None
    """Who asks."""
    correlation_id: CommandId | None = None
    causation_id: CommandId | None = None
    effective_at: Moment | None = None
    """When it happened at the venue; None: now."""

    def __init__(self, **fields: Any) -> None:
        """Check every field; raises `CommandRejected` (`FloatRefused` for a float)."""
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise rejected(type(self), error) from None
