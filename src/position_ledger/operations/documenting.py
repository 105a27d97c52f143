"""The reference pages of the schema: made from the migrations in a scratch database, written, or compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from position_ledger.database import translated
from position_ledger.errors import ConfigurationError
from position_ledger.migration.schema_pages import MARK, SchemaFacts, pages, touched_by
from position_ledger.operations.common import migrator_of, projections
from position_ledger.settings import Settings
from position_ledger.setup import Reached

__all__ = ["Written", "compare_pages", "schema_pages", "write_pages"]


@dataclass(frozen=True, slots=True)
class Written:
    """What writing did: pages that are new or other than before, and pages of tables that are gone."""

    changed: tuple[Path, ...]
    removed: tuple[Path, ...]


def schema_pages(settings: Settings, reached: Reached) -> dict[str, str]:
    """Every page by file name, of the schema that the migrations make; the ledger's own tables are not looked at.

    Raises:
        MigrationError: a migration is wrong, or this role may make no scratch database.
    """
    migrator = migrator_of(settings, reached)
    numbers = range(len(migrator.files) + 1)
    with translated():
        migrator.targets.prepare(numbers)
        catalogues = [migrator.targets.catalogue_at(number) for number in numbers]
    keys = {one.table: one.key_column for one in projections(settings)}
    return pages(SchemaFacts(catalogues[-1], keys, touched_by(migrator.files, catalogues)))


def compare_pages(made: Mapping[str, str], folder: Path) -> list[str]:
    """How a folder differs from the pages, a sentence for each page with its first line that is not so."""
    found = []
    for name, text in made.items():
        page = folder / name
        if not page.is_file():
            found.append(f"{page} is missing")
            continue
        kept = page.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = enumerate(zip_longest(kept, text.splitlines()), 1)
        first = next(((number, new) for number, (old, new) in lines if old != new), None)
        if first is not None:
            found.append(f"{page}:{first[0]} differs: it should be {first[1] or 'the end'!r}")
    return [*found, *(f"{page} is of a table that no migration makes" for page in _surplus(made, folder))]


def write_pages(made: Mapping[str, str], folder: Path) -> Written:
    """Write the pages that differ and remove those of tables that are gone; other files of the folder are left alone.

    Raises:
        ConfigurationError: a page stands in the way that somebody wrote by hand, or the folder cannot be written.
    """
    by_hand = [page for page in (folder / name for name in made) if page.is_file() and not _is_ours(page)]
    if by_hand:
        msg = f"{by_hand[0]} was not written by this command and would be lost: move it, or name another folder with --out"
        raise ConfigurationError(msg)
    surplus = _surplus(made, folder)
    changed = [
        folder / name
        for name, text in made.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for page in changed:
            page.write_text(made[page.name], encoding="utf-8")
        for page in surplus:
            page.unlink()
    except OSError as error:
        msg = f"the pages cannot be written to {folder}: {error.strerror}; name another folder with --out"
        raise ConfigurationError(msg) from error
    return Written(tuple(changed), tuple(surplus))


def _surplus(made: Mapping[str, str], folder: Path) -> list[Path]:
    return [page for page in sorted(folder.glob("*.md")) if page.name not in made and _is_ours(page)]


def _is_ours(page: Path) -> bool:
    with page.open(encoding="utf-8", errors="replace") as text:
        return text.readline().rstrip("\n") == MARK
