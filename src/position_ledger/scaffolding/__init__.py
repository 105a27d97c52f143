"""A folder that a team edits: migrations, projections, workers and tests, made once and followed by releases."""

from position_ledger.scaffolding.making import make_folder
from position_ledger.scaffolding.upgrading import Upgrade, upgrade_folder

__all__ = ["Upgrade", "make_folder", "upgrade_folder"]
