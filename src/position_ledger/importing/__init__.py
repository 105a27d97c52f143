"""Import of real fills: a CSV file and a mapping go in; events and a list of refused rows come out."""

from __future__ import annotations

from position_ledger.importing.fills import ImportResult, import_fills
from position_ledger.importing.mapping import FillMapping, load_mapping, preset_names

__all__ = ["FillMapping", "ImportResult", "import_fills", "load_mapping", "preset_names"]
