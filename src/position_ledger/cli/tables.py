"""Which tables there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from position_ledger.errors import ConfigurationError
from position_ledger.projection.definition import load_projections

if TYPE_CHECKING:
    from position_ledger.settings import Settings


def known_table(settings: Settings, name: str) -> str:
    """The name of a projected table. Raises `ConfigurationError`, naming those that exist, for another."""
    tables = [projection.table for projection in load_projections(settings.projections)]
    if name not in tables:
        msg = f"there is no projected table {name!r}; position-ledger status lists them: {', '.join(tables)}"
        raise ConfigurationError(msg)
    return name
