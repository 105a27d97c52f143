"""Import of fills and quotes: a CSV file and a mapping go in; events and a list of refused rows come out."""

from __future__ import annotations

from position_ledger.importing.fills import ImportResult, import_fills
from position_ledger.importing.mapping import FillMapping, load_mapping, preset_names
from position_ledger.importing.quote_mapping import QuoteMapping, load_quote_mapping, quote_preset_names
from position_ledger.importing.quotes import QuotesResult, import_quotes

__all__ = [
    "FillMapping",
    "ImportResult",
    "QuoteMapping",
    "QuotesResult",
    "import_fills",
    "import_quotes",
    "load_mapping",
    "load_quote_mapping",
    "preset_names",
    "quote_preset_names",
]
