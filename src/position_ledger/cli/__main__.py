"""``python -m position_ledger.cli``: the same as `position-ledger`."""

from __future__ import annotations

from position_ledger.cli import main

if __name__ == "__main__":
    main()
