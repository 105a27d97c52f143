"""``python -m position_ledger`` is the command ``position-ledger``."""

from position_ledger.cli import main

main()
