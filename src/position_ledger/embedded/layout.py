"""Where everything of one data folder is, and the private folders and socket addresses made from that."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from position_ledger.errors import ConfigurationError

ROOT_FOLDER = Path("/var/lib/position-ledger")
"""The only folder that a root-run ledger writes server files to; nothing outside it changes its permissions."""

DATABASE = "position_ledger"
OWNER = "position_ledger"
PORT = 5432
"""Only a part of the socket's name, and named in the address because libpq would otherwise look at PGPORT."""
POSTGRES_SOCKET = f".s.PGSQL.{PORT}"
VALKEY_SOCKET = "valkey.sock"
SOCKET_PATH_BYTES_MAX = 107
"""What `sun_path` of a Unix socket address holds, without the closing zero byte (unix(7))."""

_POINTER = "servers-are-in"
_BACK_POINTER = "belongs-to"
_PRIVATE = 0o700
_PASSABLE = 0o711


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one data folder: `home` is what the user named, `place` is where the files of the servers are."""

    home: Path
    place: Path

    @property
    def control(self) -> Path:
        """Locks, state and logs; only the user of the ledger can enter."""
        return self.place / "control"

    @property
    def users_lock(self) -> Path:
        """Held shared by every process that uses the servers."""
        return self.control / "users.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the one supervisor."""
        return self.control / "supervisor.lock"

    @property
    def state_file(self) -> Path:
        """What the supervisor tells the users."""
        return self.control / "state.json"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor did and why."""
        return self.control / "supervisor.log"

    @property
    def postgres(self) -> Path:
        """The folder in which the data folder is made and then appears whole, by a rename."""
        return self.place / "postgres"

    @property
    def data(self) -> Path:
        """The data folder of PostgreSQL."""
        return self.postgres / "data"

    @property
    def valkey(self) -> Path:
        """The append-only files of Valkey."""
        return self.place / "valkey"


def runs_as_root() -> bool:
    """Whether this process is root, for whom PostgreSQL refuses to run."""
    return os.geteuid() == 0


def default_home() -> Path:
    """Return the data folder when none is named: the user's own, where `HOME` leads.

    Root with the HOME of another user (sudo) gets a folder of its own: one in that HOME would lock the user out.
    """
    import platformdirs  # noqa: PLC0415  (only the default needs it)

    own = Path(platformdirs.user_data_path("position-ledger", appauthor=False))
    return own if not runs_as_root() or _is_roots(own) else ROOT_FOLDER / "homes" / "default"


def _is_roots(path: Path) -> bool:
    existing = next(folder for folder in (path, *path.parents) if folder.is_dir())
    return existing.stat().st_uid == 0 and existing != existing.parent


def open_layout(home: Path) -> Layout:
    """Make the folders of `home` that the ledger's own processes need, and say where they are.

    Raises ConfigurationError when the folder belongs to somebody else; OSError when it cannot be made.
    """
    home = home.expanduser().resolve()
    layout = _layout_for_root(home) if runs_as_root() else _layout_for_user(home)
    make_folder(layout.control, os.geteuid(), _PRIVATE)
    return layout


def _layout_for_user(home: Path) -> Layout:
    home.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    owner = home.stat().st_uid
    if owner != os.geteuid():
        msg = (
            f"the data folder {home} belongs to user id {owner}, not to yours ({os.geteuid()}); "
            "set POSITION_LEDGER_HOME to a folder of your own"
        )
        raise ConfigurationError(msg)
    return Layout(home, home)


def _layout_for_root(home: Path) -> Layout:
    make_root_folder()
    homes = ROOT_FOLDER / "homes"
    make_folder(homes, 0, _PASSABLE)
    place = home if home.parent == homes else homes / _place_of(home)
    make_folder(place, 0, _PASSABLE)
    _create_once(place / _BACK_POINTER, f"{home}\n")
    return Layout(home, place)


def make_root_folder() -> None:
    """Make `ROOT_FOLDER`, which everybody may pass and only root may write to."""
    make_folder(ROOT_FOLDER, 0, _PASSABLE)


def _place_of(home: Path) -> str:
    """Name, under the root folder, of the real files of a root-run `home`; the home remembers it.

    The name is new when the home is new: a home that was removed and made again must not show its old data.
    """
    _refuse_home_of_a_user(home)
    home.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    pointer = home / _POINTER
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    _create_once(pointer, f"{ROOT_FOLDER / 'homes' / digest}-{secrets.token_hex(4)}\n")
    return _read_pointer(pointer)


def _refuse_home_of_a_user(home: Path) -> None:
    control = home / "control"
    if not os.path.lexists(control):
        return
    owner = control.lstat().st_uid
    msg = (
        f"the data folder {home} belongs to the ledger of user id {owner} and you are root; "
        "run the command as that user, or set POSITION_LEDGER_HOME to another folder"
    )
    raise ConfigurationError(msg)


def _create_once(path: Path, text: str) -> None:
    """Write a file that appears whole, unless it is there already or another process is first."""
    if os.path.lexists(path):
        return
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _read_pointer(pointer: Path) -> str:
    fd = os.open(pointer, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(fd) as file:
        place = Path(file.read().strip())
        owner = os.fstat(fd).st_uid
    if owner != 0 or place.parent != ROOT_FOLDER / "homes":
        msg = f"{pointer} does not name a folder of root's ledger (owner {owner}, text {str(place)!r}); remove it"
        raise ConfigurationError(msg)
    return place.name


def still_there(layout: Layout) -> bool:
    """Whether the home still leads to these files; False after somebody removed it."""
    if layout.home == layout.place:
        return layout.control.is_dir()
    try:
        return _read_pointer(layout.home / _POINTER) == layout.place.name
    except (OSError, ConfigurationError):
        return False


def make_folder(path: Path, owner: int, mode: int) -> None:
    """Make a folder of the ledger, or check one that is there: a real folder, of this owner, with this mode.

    Raises ConfigurationError when something else has taken the name. Only ever used on folders of the ledger itself.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=_PRIVATE)
    if _awaits_its_owner(path, owner):
        os.chown(path, owner, -1, follow_symlinks=False)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
        msg = f"{path} is not a folder that belongs to user id {owner}; move it away or choose another data folder"
        raise ConfigurationError(msg)
    if stat.S_IMODE(found.st_mode) != mode:
        path.chmod(mode)


def _awaits_its_owner(path: Path, owner: int) -> bool:
    """Whether root made this folder for another user and has not handed it over yet, perhaps because it was killed."""
    found = path.lstat()
    is_fresh = stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and runs_as_root()
    return is_fresh and owner != 0 and not any(path.iterdir())


def make_server_folders(layout: Layout, server_uid: int) -> None:
    """Make the folders that the servers write to; private to `server_uid`."""
    make_folder(layout.postgres, os.geteuid(), _PASSABLE if runs_as_root() else _PRIVATE)
    make_folder(layout.valkey, server_uid, _PRIVATE)


def make_socket_folder(layout: Layout, server_uid: int) -> Path:
    """Make the folder of the sockets: in the data folder, or when its path is too long a short one, as private.

    A name in a folder that everybody can write to may be taken by others; then the next one is tried.
    """
    digest = hashlib.sha256(os.fsencode(layout.place)).hexdigest()[:16]
    spare = [Path(base) / f"position-ledger-{server_uid}-{digest}" for base in ("/tmp", "/var/tmp", "/dev/shm")]  # noqa: S108
    for folder in [layout.place / "run", *spare]:
        if not fits_sockets(folder):
            continue
        try:
            make_folder(folder, server_uid, _PRIVATE)
        except (OSError, ConfigurationError):
            continue
        return folder
    msg = (
        f"no private folder for the sockets of {layout.home} could be made; set POSITION_LEDGER_HOME to a shorter path"
    )
    raise ConfigurationError(msg)


def fits_sockets(folder: Path) -> bool:
    """Whether sockets in `folder` can be addressed: short enough, and without the comma that libpq splits hosts at."""
    longest = max(len(POSTGRES_SOCKET), len(VALKEY_SOCKET)) + 1
    return len(os.fsencode(folder)) + longest <= SOCKET_PATH_BYTES_MAX and "," not in str(folder)


def database_url(socket_folder: Path) -> str:
    """Return the address of the database as a libpq URI."""
    return f"postgresql:///{DATABASE}?host={quote(os.fsencode(socket_folder), safe='')}&port={PORT}&user={OWNER}"


def redis_url(socket_folder: Path) -> str:
    """Return the address of Valkey as redis-py understands it."""
    return f"unix://{quote(os.fsencode(socket_folder / VALKEY_SOCKET))}?db=0"
