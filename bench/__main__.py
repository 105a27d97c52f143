"""``python -m bench``, see `bench.run`.

Every process of a measurement imports this module once more, as one of a rebuild does with the script that began it. The
ledger's own scripts import next to nothing; so does this one, or each loading process would pay for the whole bench.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from bench.run import main

    sys.exit(main())
