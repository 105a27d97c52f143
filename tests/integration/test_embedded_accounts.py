"""The embedded servers are private, open nothing that was closed, and run for root and for ordinary users."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import redis

from position_ledger.embedded import EmbeddedServers
from position_ledger.embedded.layout import (
    POSTGRES_SOCKET,
    ROOT_FOLDER,
    SOCKET_PATH_BYTES_MAX,
    VALKEY_SOCKET,
    Layout,
    open_layout,
)
from position_ledger.errors import ConfigurationError
from tests.support.embedded import SOURCE, USER, UserProcess, remove, server_processes, stop_now

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)
IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="proves what root must not do")
UNSHARE = shutil.which("unshare") or "unshare"
SITE = Path(psycopg.__file__).parents[1]


def _modes(paths: list[Path]) -> dict[str, tuple[int, int, int]]:
    """Mode, owner and group of paths and of everything above them."""
    return {
        str(path): (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid)
        for start in paths
        for path in (start, *start.parents)
    }


def _socket_folder(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


@pytest.fixture
def closed_home(tmp_path: Path) -> Iterator[Path]:
    """Give a data folder below a folder that only its owner can enter, like that of root; what root has elsewhere goes too."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / 'a home\'s 100%25 "ü"'
    yield home
    if home.exists():
        place = open_layout(home).place
        remove(place)
        remove(home)


def test_servers_are_private_and_off_the_network(closed_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a home with every odd sign in a closed folder, when started, then all is private, no port is open."""
    watched = [closed_home.parent, SITE, Path(sys.executable).resolve(), Path(sys.prefix), Path("/var/lib"), SOURCE]
    before = _modes(watched)
    for name, value in {"PGPORT": "1", "PGHOST": "/x", "PGUSER": "x", "PGDATABASE": "x", "PGDATA": "/x"}.items():
        monkeypatch.setenv(name, value)  # the caller's own, for another server

    with EmbeddedServers.start(closed_home) as servers:
        layout = Layout(servers.home, servers.place)
        assert _modes(watched) == before
        with psycopg.connect(servers.database_url) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
            assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
            assert connection.execute("SELECT current_user").fetchone() == ("position_ledger",)
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.ping()
        processes = server_processes(layout)
        assert not _listening_sockets() & {link for pid in processes for link in _sockets_of(pid)}
        for private in (layout.control, layout.data, layout.valkey, _socket_folder(servers.database_url)):
            assert private.stat().st_mode & 0o777 == 0o700
        if IS_ROOT:
            assert all(Path(f"/proc/{pid}").stat().st_uid != 0 for pid in processes)
            assert servers.place.is_relative_to(ROOT_FOLDER)
    stop_now(layout)
    assert _modes(watched) == before


def _listening_sockets() -> set[str]:
    lines = [line.split() for name in ("tcp", "tcp6") for line in _lines(Path("/proc/net") / name)[1:]]
    return {f"socket:[{fields[9]}]" for fields in lines if fields[3] == "0A"}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _sockets_of(pid: int) -> list[str]:
    return [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]


def test_the_default_home_follows_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an empty HOME, when no data folder is named, then it is in there; root never settles in a user's HOME."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert EmbeddedServers.default_home() == tmp_path / ".local/share/position-ledger"

    if IS_ROOT:
        os.chown(tmp_path, pwd.getpwnam("nobody").pw_uid, -1)
        assert EmbeddedServers.default_home() == ROOT_FOLDER / "homes/default"


@only_root
def test_a_home_of_root_that_was_removed_starts_empty(closed_home: Path) -> None:
    """Given a home of root with data, when removed and made again, then the old data does not come back by itself."""
    closed_home.mkdir(mode=0o700)
    first = open_layout(closed_home)
    assert open_layout(closed_home) == first

    shutil.rmtree(closed_home)

    second = open_layout(closed_home)
    assert second.place != first.place
    shutil.rmtree(first.place)


@only_root
def test_root_refuses_the_home_of_another_user(tmp_path: Path) -> None:
    """Given a home that an ordinary user's ledger made, when root starts there, then refused, nothing changed."""
    control = tmp_path / "control"
    control.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(control, nobody.pw_uid, nobody.pw_gid)

    with pytest.raises(ConfigurationError, match=f"belongs to the ledger of user id {nobody.pw_uid} and you are root"):
        EmbeddedServers.start(tmp_path)

    assert list(tmp_path.iterdir()) == [control]


@only_root
def test_a_pointer_that_root_did_not_write_is_refused(tmp_path: Path) -> None:
    """Given a home whose owner made it point at other data of root's, when started, then it is not followed."""
    pointer = tmp_path / "servers-are-in"
    pointer.write_text(f"{ROOT_FOLDER}/homes/default\n")
    nobody = pwd.getpwnam("nobody")
    os.chown(pointer, nobody.pw_uid, nobody.pw_gid)

    with pytest.raises(ConfigurationError, match="remove it"):
        EmbeddedServers.start(tmp_path)


# --- as an ordinary user, when the tests themselves run as root


@pytest.fixture(scope="module")
def nobody_python() -> list[str]:
    """Give a command that runs this Python's packages as user nobody; skipped where no Python is in nobody's reach."""
    if not IS_ROOT:
        pytest.skip("the tests run as an ordinary user already")
    nobody = pwd.getpwnam("nobody")
    as_nobody = [sys.executable, "-c", _BECOME, str(nobody.pw_uid), str(nobody.pw_gid)]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        command = [*as_nobody, python]
        probe = subprocess.run(
            [*command, "-c", "import psycopg, position_ledger.embedded"],
            env={"PYTHONPATH": f"{SOURCE}:{SITE}"},
            capture_output=True,
            check=False,
        )
        if probe.returncode == 0:
            return command
    pytest.skip("no Python and source folder that user nobody can reach; run the tests as an ordinary user as well")


_BECOME = (
    "import os,sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1])); os.chdir('/');"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


@pytest.fixture
def nobody_folder() -> Iterator[Path]:
    """Give a folder of user nobody, private, in a place that nobody can reach."""
    folder = Path(tempfile.mkdtemp(prefix="pl-nobody-"))
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    yield folder
    remove(folder)


@pytest.mark.uncounted
def test_an_ordinary_user_has_everything_in_the_home(nobody_python: list[str], nobody_folder: Path) -> None:
    """Given user nobody with a home too long for sockets, when started, then all is private and nobody's."""
    long_home = nobody_folder / ("long-" * 30)
    one, two = UserProcess(long_home, prefix=nobody_python), UserProcess(nobody_folder / "two", prefix=nobody_python)

    for user, home in ((one, long_home), (two, nobody_folder / "two")):
        assert "database_url" in user.answer, user.answer
        assert user.answer["place"] == str(home)
        with psycopg.connect(user.answer["database_url"]) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("position_ledger",)
        with redis.Redis.from_url(user.answer["redis_url"]) as client:
            assert client.ping()
        uid = pwd.getpwnam("nobody").pw_uid
        processes = server_processes(Layout(home, home))
        assert processes
        assert all(Path(f"/proc/{pid}").stat().st_uid == uid for pid in processes)
        folder = _socket_folder(user.answer["database_url"])
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_uid == uid
        assert len(os.fsencode(folder / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES_MAX
    assert not _socket_folder(one.answer["database_url"]).is_relative_to(long_home)
    assert _socket_folder(two.answer["database_url"]) == nobody_folder / "two" / "run"
    one.leave()
    two.kill9()
    for home in (long_home, nobody_folder / "two"):
        stop_now(Layout(home, home))
    assert not _socket_folder(one.answer["database_url"]).exists()


def test_another_user_cannot_connect(nobody_python: list[str], closed_home: Path) -> None:
    """Given servers of root, when user nobody connects to their sockets, then permission is denied."""
    code = (
        "import socket, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try: socket.socket(socket.AF_UNIX).connect(path); print('let in')\n"
        "    except OSError as error: print(error)\n"
    )
    with EmbeddedServers.start(closed_home) as servers:
        sockets = [_socket_folder(servers.database_url) / name for name in (POSTGRES_SOCKET, VALKEY_SOCKET)]
        assert all(path.is_socket() for path in sockets)
        done = subprocess.run([*nobody_python, "-c", code, *sockets], capture_output=True, text=True, check=True)
        layout = Layout(servers.home, servers.place)
    assert done.stdout.count("Permission denied") == 2, done.stdout
    stop_now(layout)


def test_an_ordinary_user_gets_a_sentence_for_a_home_of_root(nobody_python: list[str], tmp_path: Path) -> None:
    """Given a home of root, when user nobody starts there, then one sentence says why not and what to set."""
    open_folder = Path(tempfile.mkdtemp(prefix="pl-root-"))
    open_folder.chmod(0o755)
    homes = {
        tmp_path / "x": "Permission denied",
        open_folder / "x": "Permission denied",
        open_folder: "belongs to user id 0",
    }
    try:
        for home, why in homes.items():
            user = UserProcess(home, prefix=nobody_python)
            assert user.answer["error"] == "ConfigurationError"
            assert why in user.answer["text"]
            assert "POSITION_LEDGER_HOME" in user.answer["text"]
            user.leave()
    finally:
        open_folder.rmdir()


@only_root
@pytest.mark.parametrize(("size_mb", "words"), [(34, "No space left on device"), (20, "MB are free")])
def test_a_full_disk_is_reported_in_words(size_mb: int, words: str) -> None:
    """Given a disk too small for a data folder, when started, then one sentence says so and no process is left."""
    with_room = Path(tempfile.mkdtemp(prefix="pl-room-"))
    shutil.rmtree(open_layout(with_room).place)  # makes the folder of all homes, to mount on
    shutil.rmtree(with_room)
    homes = ROOT_FOLDER / "homes"
    mount = f"mount -t tmpfs -o size={size_mb}m,mode=711 tmpfs {homes}"
    if subprocess.run([UNSHARE, "-m", "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets root mount nothing")

    done = subprocess.run(
        [UNSHARE, "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", USER, str(homes / "full")],
        env={"PYTHONPATH": f"{SOURCE}:{SITE}", "PATH": os.environ["PATH"]},
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert '"error": "DatabaseUnavailable"' in done.stdout, done.stdout
    assert words in done.stdout
