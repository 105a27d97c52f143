"""Packages that settings name: by a dotted name, or as a folder, which then needs no place on the import path."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType


def is_folder(told: str) -> bool:
    """Whether a setting names a folder: it has a slash or tilde, or there is such a folder in the working directory."""
    return "/" in told or told.startswith("~") or Path(told).is_dir()


def absolute(told: str) -> str:
    """The setting with a folder made absolute, so that it means the same wherever a process goes; names stay."""
    return str(Path(told).expanduser().absolute()) if is_folder(told) else told


def import_told(told: str) -> ModuleType:
    """Import the package that a dotted name or an absolute folder names; once in each process.

    A folder becomes a package of a name of its own: two ledgers, or a folder that is called like another package, never
    meet in ``sys.modules``. So its modules import each other relatively.

    Raises:
        ImportError: there is none, or one of its modules cannot be imported.
    """
    if not told.startswith("/"):
        return import_module(told)
    folder = Path(told)
    if not folder.is_dir():
        msg = "there is no such folder"
        raise ImportError(msg)
    try:
        return import_module(_finder().add(folder))
    except ModuleNotFoundError as error:
        raise _with_advice(error, folder) from error


def import_part(package: ModuleType, name: str) -> ModuleType:
    """Import a module of such a package.

    Raises:
        ImportError: as `import_told`.
    """
    try:
        return import_module(f"{package.__name__}.{name}")
    except ModuleNotFoundError as error:
        raise _with_advice(error, Path(next(iter(getattr(package, "__path__", ())), ""))) from error


def _with_advice(error: ModuleNotFoundError, folder: Path) -> ModuleNotFoundError:
    if (error.name or "").partition(".")[0] != folder.name:
        return error
    msg = f"{error.msg}; modules of the folder import each other relatively, such as from .positions import POSITIONS"
    return ModuleNotFoundError(msg, name=error.name)


class _Folders(MetaPathFinder):
    """Finds the folders that were named, each under the name that it was given."""

    def __init__(self) -> None:
        self._folders: dict[str, Path] = {}

    def add(self, folder: Path) -> str:
        """The name of a folder's package; the same for the same folder in every process."""
        place = folder.resolve()
        digest = hashlib.sha256(str(place).encode()).hexdigest()[:16]
        name = f"{re.sub(r'[^0-9A-Za-z]', '_', place.name)}_of_folder_{digest}"
        self._folders[name] = place
        return name

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the signature of the import system
        target: ModuleType | None = None,  # noqa: ARG002 - likewise
    ) -> ModuleSpec | None:
        """How to load one of them; None for every other module."""
        folder = self._folders.get(fullname)
        if folder is None:
            return None
        start = folder / "__init__.py"
        if start.is_file():
            return spec_from_file_location(fullname, start, submodule_search_locations=[str(folder)])
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec


@lru_cache(maxsize=1)
def _finder() -> _Folders:
    """The one finder of this process, known to the import system from its first use on."""
    finder = _Folders()
    sys.meta_path.append(finder)
    return finder
