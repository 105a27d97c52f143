"""Bringing a team's folder to this release: new migrations come in, what the team edits is only compared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from position_ledger.errors import ConfigurationError, MigrationError
from position_ledger.migration import load_folder
from position_ledger.migration.files import SUM_FILE, MigrationFile
from position_ledger.migration.sums import check_sum, write_sum
from position_ledger.scaffolding.shipped import shipped

_NUMBER_LINE: Final = re.compile(rb"^(--\s*Migration\s*:\s*)\d+", re.MULTILINE)
EDITED: Final = ("projections", "workers")


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that is not as it ships: its path in the team's folder, why, and where the release's version is."""

    path: str
    reason: str
    shipped: str


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Migrations that were added, as (name in the release, name in the folder), and files that differ."""

    added: tuple[tuple[str, str], ...]
    differing: tuple[Difference, ...]


def upgrade_folder(folder: Path) -> Upgrade:
    """Copy the migrations of this release that a folder lacks, under its next free numbers, and name what differs.

    A migration is known by its name without the number. Nothing that is there is overwritten.

    Raises:
        ConfigurationError: it is no folder that init made.
        MigrationError: its migrations are not in order; nothing was written.
    """
    migrations = folder / "migrations"
    if not migrations.is_dir():
        raise ConfigurationError(
            f"{folder} has no folder migrations: run position-ledger init {folder} for a new or empty folder first"
        )
    ours = load_folder(migrations)
    _require_sum(migrations, ours)
    added = _add_missing(migrations, ours)
    return Upgrade(added, (*_differing_migrations(migrations, ours), *_differing(folder)))


def _require_sum(migrations: Path, ours: tuple[MigrationFile, ...]) -> None:
    sums = migrations / SUM_FILE
    if not sums.is_file():
        raise MigrationError(f"{sums} is not there: restore it, or write it with position-ledger migrate sum")
    check_sum(ours, sums.read_text(encoding="utf-8"))


def _add_missing(migrations: Path, ours: tuple[MigrationFile, ...]) -> tuple[tuple[str, str], ...]:
    known = {_bare(file.filename) for file in ours}
    missing = [name for name in shipped("migrations") if _bare(name) not in known]
    added = []
    for number, name in enumerate(missing, start=ours[-1].number + 1):
        target = f"{number:03}_{_bare(name)}"
        (migrations / target).write_bytes(renumbered(shipped("migrations")[name].read_bytes(), number))
        added.append((name, target))
    if added:
        write_sum(migrations)
    return tuple(added)


def renumbered(content: bytes, number: int) -> bytes:
    """A migration with another number in its header."""
    return _NUMBER_LINE.sub(rb"\g<1>" + f"{number:03}".encode(), content, count=1)


def _bare(filename: str) -> str:
    """A file's name without its number: what it is known by in every folder."""
    return filename.partition("_")[2]


def _differing_migrations(migrations: Path, ours: tuple[MigrationFile, ...]) -> Iterator[Difference]:
    by_bare = {_bare(name): (name, file) for name, file in shipped("migrations").items()}
    for file in ours:
        name, theirs = by_bare.get(_bare(file.filename), ("", None))
        if theirs is None:
            continue
        if (migrations / file.filename).read_bytes() != renumbered(theirs.read_bytes(), file.number):
            reason = f"has the name of the release's {name} and other content"
            yield Difference(f"migrations/{file.filename}", reason, str(theirs))


def _differing(folder: Path) -> Iterator[Difference]:
    for kind in EDITED:
        for name, file in shipped(kind).items():
            own = folder / kind / name
            if not own.is_file():
                yield Difference(f"{kind}/{name}", "is in the release and not here", str(file))
            elif own.read_bytes() != file.read_bytes():
                yield Difference(f"{kind}/{name}", "differs from the release", str(file))
