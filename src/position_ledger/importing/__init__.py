"""Import of real files: a CSV file and a mapping go in; events and a list of refused rows come out."""

from __future__ import annotations

from position_ledger.importing.fills import import_fills
from position_ledger.importing.mapping import FillMapping, load_mapping, preset_names
from position_ledger.importing.ordering import ImportResult
from position_ledger.importing.quote_mapping import QuoteMapping, load_quote_mapping, quote_preset_names
from position_ledger.importing.quotes import QuotesResult, import_quotes
from position_ledger.importing.signals import import_edges, import_game_states

__all__ = [
    "FillMapping",
    "ImportResult",
    "QuoteMapping",
    "QuotesResult",
    "import_edges",
    "import_fills",
    "import_game_states",
    "import_quotes",
    "load_mapping",
    "load_quote_mapping",
    "preset_names",
    "quote_preset_names",
]
