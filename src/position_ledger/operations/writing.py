"""Write into the folder of migrations: the next file from a template, and the sum file after an edit."""

from __future__ import annotations

import getpass
import subprocess
import sysconfig
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from position_ledger.errors import MigrationError
from position_ledger.migration.files import SUM_FILE, MigrationFile, load_folder, ordered, parse_file
from position_ledger.migration.sums import SumChange, check_sum, sum_changes, write_sum
from position_ledger.migration.templates import Draft, Filling, draft_files
from position_ledger.migration.view_texts import views_on
from position_ledger.operations.common import migrations_folder, projections
from position_ledger.settings import Settings

GIT_LIMIT_S = 5.0
INSTALLED = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class SumReport:
    """The sum file as it is now, and what had happened to the migrations since it was written before."""

    path: Path
    changes: tuple[SumChange, ...]


def new_migration(
    settings: Settings, name: str, template: str = "empty", filling: Filling | None = None, *, summary: str = ""
) -> tuple[Path, ...]:
    """Write the next migration (two files for a foreign key of a plain table) and its line in the sum file.

    Nothing that exists is overwritten. The number is the next free one; the author is that of git, else the user.

    Raises:
        MigrationError: the name is taken or none, the template cannot be filled so, a file of the folder is wrong, the
            sum file does not fit it, or the folder belongs to an installed package.
    """
    folder = writable_folder(settings)
    existing = _existing(folder)
    given = filling or Filling()
    is_projected = given.table in {projection.table for projection in projections(settings)}
    is_projected = is_projected and template != "projected-table"
    is_retyped = template == "change-type" and given.column
    views = views_on(existing, given.table, given.column[0]) if is_retyped else ()
    found = replace(given, is_projected=is_projected, views=views)
    draft = Draft(name, template, found, _author(folder), datetime.now(UTC).date(), summary)
    texts = draft_files(draft, len(existing) + 1)
    added = [parse_file(filename, text.encode()) for filename, text in texts]
    _refuse_taken(existing, added)
    ordered([*existing, *added])
    return _write(folder, texts)


def renew_sum(settings: Settings) -> SumReport:
    """Write the sum file again after migrations were edited, and say which; applied ones are held against the database.

    Raises MigrationError for a file or folder that is wrong.
    """
    folder = writable_folder(settings)
    files = load_folder(folder)
    path = folder / SUM_FILE
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    return SumReport(write_sum(folder), sum_changes(files, before))


def sum_fits(settings: Settings) -> bool:
    """Whether the sum file fits the migrations; so does one that is not there."""
    folder = migrations_folder(settings)
    sums = folder / SUM_FILE
    try:
        if sums.is_file():
            check_sum(load_folder(folder), sums.read_text(encoding="utf-8"))
    except MigrationError:
        return False
    return True


def writable_folder(settings: Settings) -> Path:
    """The folder of migrations; MigrationError for one that an installation would overwrite, or that is no folder."""
    folder = migrations_folder(settings)
    path = next(iter(getattr(folder, "_paths", [])), folder)  # a package without __init__ is a view of its folders
    if not isinstance(path, Path):
        raise MigrationError(f"the migrations {settings.migrations} are not in a folder; {_INIT}")
    path = path.resolve()
    roots = [Path(sysconfig.get_paths()[name]).resolve() for name in ("purelib", "platlib")]
    if INSTALLED & set(path.parts) or any(path.is_relative_to(root) for root in roots):
        raise MigrationError(f"{path} belongs to the installed package and the next release overwrites it; {_INIT}")
    return path


_INIT = "make a folder of your own with `position-ledger init DIR` and name it with POSITION_LEDGER_MIGRATIONS=DIR/migrations"


def _existing(folder: Path) -> tuple[MigrationFile, ...]:
    """The files that are there; a sum file that does not fit them is no base to write a new one on."""
    if not any(folder.glob("*.sql")):
        return ()
    files = load_folder(folder)
    path = folder / SUM_FILE
    if path.is_file():
        check_sum(files, path.read_text(encoding="utf-8"))
    return files


def _refuse_taken(existing: tuple[MigrationFile, ...], added: list[MigrationFile]) -> None:
    taken = {file.name.partition("_")[2]: file.filename for file in existing}
    for file in added:
        there = taken.get(file.name.partition("_")[2])
        if there is not None:
            raise MigrationError(f"{there} has that name already; choose another, or edit it while it is not applied")


def _write(folder: Path, texts: tuple[tuple[str, str], ...]) -> tuple[Path, ...]:
    """All files and the sum file, or none of them."""
    written: list[Path] = []
    try:
        for filename, text in texts:
            path = folder / filename
            with path.open("x", encoding="utf-8", newline="\n") as file:
                written.append(path)
                file.write(text)
        write_sum(folder)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise MigrationError(f"{error.filename} was written meanwhile; run the command again") from error
        raise
    return tuple(written)


def _author(folder: Path) -> str:
    """Name and address as git knows them in that folder, else the user of this machine."""
    name, email = (_of_git(folder, key) for key in ("user.name", "user.email"))
    if name:
        return f"{name} <{email}>" if email else name
    with suppress(KeyError, OSError):  # a container user without a name
        return getpass.getuser()
    return "unknown"


def _of_git(folder: Path, key: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(  # noqa: S603 - fixed words and a folder
            ["git", "-C", str(folder), "config", "--get", key],  # noqa: S607 - git is where the user has it
            capture_output=True,
            text=True,
            timeout=GIT_LIMIT_S,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""
