"""Write docs/reference/schema again, with a server of its own that ends with it: ``python -m tools.schema_pages``."""

from __future__ import annotations

import sys
from pathlib import Path

from position_ledger.embedded.temporary import TemporaryPostgres
from position_ledger.operations import schema_pages, write_pages
from position_ledger.settings import Settings
from position_ledger.setup import Reached

FOLDER = Path("docs/reference/schema")


def main() -> int:
    """Write what differs and name it; 0."""
    with TemporaryPostgres(is_durable=False) as server:
        settings = Settings(database_url=server.database_url)
        written = write_pages(schema_pages(settings, Reached(server.database_url, "", None)), FOLDER)
    for page in (*written.changed, *written.removed):
        print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
