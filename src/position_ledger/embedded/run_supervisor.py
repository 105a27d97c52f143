"""Become the supervisor of a data folder: python -P run_supervisor.py HOME PLACE LOCK_FD.

A script, so that it can do two things before the package is imported: detach from whoever started it, and keep the
public face of the package, with everything that imports (0.5 s, 60 MB), out of a small process that lives long.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType


def _stand_in_for_the_package() -> None:
    package = ModuleType("position_ledger")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules[package.__name__] = package


if __name__ == "__main__":
    if os.fork() != 0:
        os._exit(0)
    _stand_in_for_the_package()
    from position_ledger.embedded.supervisor import main

    main(sys.argv[1:])
