"""Which amounts the folds of a definition only carry from an event to a column, so that a load can leave them as text.

Most folds put what an event says into columns and calculate nothing: to make a decimal of each amount and a text of it
again is half of the work of a load. What a fold does with an amount is read from its source. An amount that becomes the
value of a column, directly or through functions that are read likewise, is carried. One that meets anything else (an
operator, a comparison, a condition, a format, a function that cannot be read) is used, and so is whatever is inside of
what meets it; where the source has something that is not known here, all of the event and of the row is used. So what is
missing here costs time, not rows; and a proof decodes every amount, whatever this module says.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from position_ledger.errors import ConfigurationError
from position_ledger.events import EVENTS
from position_ledger.projection.carrying.reading import NotUnderstoodError, Reading
from position_ledger.projection.carrying.uses import ROW, Envelope, Uses, Value
from position_ledger.projection.definition import Projection
from position_ledger.settings import Settings
from position_ledger.store.codec import Codec, Path


@lru_cache(maxsize=256)
def carried_amounts(projection: Projection[Any]) -> Mapping[str, frozenset[Path]]:
    """Paths of the amounts that no fold uses, by topic: a load may leave them as the texts that the log has."""
    if hasattr(projection.row, "__post_init__"):
        return {}  # it sees every value
    try:
        uses = Uses(projection)
    except (TypeError, NameError):  # annotations of the row that cannot be resolved
        return {}
    for event, fold in projection.folds.items():
        row, recorded = Value(frozenset({ROW})), Value(frozenset({Envelope(event.TOPIC)}))
        for function, arguments in ((fold, [row, recorded]), (projection.key, [recorded])):
            try:
                Reading(uses).called(function, arguments, {})
            except (NotUnderstoodError, ConfigurationError):
                uses.use(row)
                uses.use(recorded)
    uses.follow_columns()
    return {event.TOPIC: uses.carried(event.TOPIC) for event in projection.folds}


def codec_of_load(projection: Projection[Any], settings: Settings) -> Codec:
    """Reads events for a load of the projection: the amounts that its folds only carry stay as they are written."""
    return Codec(EVENTS, as_text=carried_amounts(projection) if settings.rebuild_leaves_text else {})
