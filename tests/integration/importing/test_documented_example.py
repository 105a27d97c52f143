from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

from position_ledger import Ledger
from position_ledger.importing import import_fills, load_mapping
from position_ledger.importing.mapping import FillMapping

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "import-fills.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_the_page_does_what_the_page_says(ledger_url: str, tmp_path: Path) -> None:
    fills, mapping = tmp_path / "fills.csv", tmp_path / "my-venue.toml"
    fills.write_text(block("csv"))
    mapping.write_text(block("toml"))
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as ledger:
        result = import_fills(ledger, fills, mapping, environment="live")
        assert (result.rows, result.accepted, result.reasons) == (4, 3, {"quantity_exceeds_held": 1})
        again = import_fills(ledger, fills, load_mapping(mapping), environment="live")
        assert (again.accepted, again.duplicates, again.rejected, again.events) == (0, 3, 1, 0)
        ledger.wait_for(result.token)
        no, yes = sorted(ledger.positions(), key=lambda row: str(row["side"]))
    assert (yes["quantity"], yes["average_entry_price"], yes["open_fees"]) == (600, Decimal("0.42"), Decimal("16.8"))
    assert (no["quantity"], no["average_entry_price"]) == (50, Decimal("0.58"))


def test_the_page_names_every_key() -> None:
    text = PAGE.read_text(encoding="utf-8")
    tables = {"file", "time", "price", "quantity", "fee", "amount", "numbers"}
    for name, field in FillMapping.model_fields.items():
        if name in tables:
            keys = getattr(field.annotation, "model_fields", {})
            assert keys
            assert [key for key in keys if f"`{name}.{key}`" not in text] == []
        elif name not in {"name", "columns", "constants", "values"}:
            assert f"`{name}`" in text
    for table in ("columns", "constants"):
        keys = getattr(FillMapping.model_fields[table].annotation, "model_fields", {})
        assert [key for key in keys if f"`{key}`" not in text] == []
