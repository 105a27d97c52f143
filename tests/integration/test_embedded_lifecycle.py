"""The embedded servers are shared, kept alive and stopped, whatever is killed. Real servers, real kills."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
import redis

from position_ledger.embedded import EmbeddedServers
from position_ledger.embedded.layout import ROOT_FOLDER, Layout, open_layout
from position_ledger.embedded.process import wait_until
from position_ledger.embedded.supervisor import LINGER_S
from position_ledger.errors import ConfigurationError, DatabaseUnavailable
from tests.support.embedded import (
    USER,
    UserProcess,
    environment,
    is_gone,
    kill9,
    ready_state,
    remove,
    server_processes,
    stop_now,
    wait_until_stopped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)


def _new_home(base: Path) -> Path:
    """Return a home whose files are in itself, also for root, so that removing it leaves nothing behind."""
    name = f"test-{secrets.token_hex(4)}"
    return ROOT_FOLDER / "homes" / name if os.geteuid() == 0 else base / name


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give one data folder for the whole module; every test finds and leaves its servers stopped or lingering."""
    home = _new_home(tmp_path_factory.mktemp("home"))
    yield home
    remove(home)


@pytest.fixture
def fresh_home(tmp_path: Path) -> Iterator[Path]:
    """Give a data folder that no server has seen."""
    home = _new_home(tmp_path)
    yield home
    remove(home)


@pytest.fixture
def layout(home: Path) -> Layout:
    """Give the paths of the module's data folder."""
    return open_layout(home)


def _sql(servers: EmbeddedServers, statement: LiteralString) -> object:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def _answers_sql(servers: EmbeddedServers) -> bool:
    try:
        return _sql(servers, "SELECT 1") == 1
    except psycopg.OperationalError:
        return False


def _supervisor_so_far(layout: Layout) -> int:
    """Return the process id of the first supervisor, while it is too early for its report."""
    return int(layout.supervisor_log.read_text().partition("[")[2].partition("]")[0])


@pytest.mark.uncounted
def test_processes_that_start_at_one_instant_share_one_pair_of_servers(fresh_home: Path) -> None:
    """Given a new folder, when six processes start at once, then one data folder is made and all get one address."""
    users = [UserProcess(fresh_home) for _ in range(6)]

    answers = [user.answer for user in users]

    assert all(answer == answers[0] for answer in answers)
    layout = open_layout(fresh_home)
    log = (layout.control / "postgres.log").read_text()
    assert log.count("ready to accept connections") == 1
    assert log.count("performing post-bootstrap initialization") == 1
    assert (layout.control / "supervisor.log").read_text().count("begins for") == 1
    users[0].kill9()
    for user in users[1:-1]:
        user.leave()
    with psycopg.connect(answers[0]["database_url"]) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
    users[-1].leave()
    assert wait_until_stopped(layout) > LINGER_S / 2


def test_data_outlives_the_servers_and_the_last_user_killed_lets_them_stop(home: Path, layout: Layout) -> None:
    """Given rows and a key, when the last user is killed with -9, then the servers stop and start as they were."""
    with EmbeddedServers.start(home) as servers:
        _sql(servers, "CREATE TABLE kept AS SELECT 7 AS number")
        with redis.Redis.from_url(servers.redis_url) as client:
            client.set("kept", "8")
        user = UserProcess(home)
        address = user.answer["database_url"]
        state = ready_state(layout)
    user.kill9()

    stopped_after_s = wait_until_stopped(layout)

    assert LINGER_S / 2 < stopped_after_s < LINGER_S + 7
    assert is_gone(state.postgres_pid)
    assert "received fast shutdown request" in (layout.control / "postgres.log").read_text()
    began_s = time.monotonic()
    with EmbeddedServers.start(home) as servers:
        assert time.monotonic() - began_s < 5
        assert servers.database_url == address
        assert _sql(servers, "SELECT number FROM kept") == 7
        with redis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
            assert client.get("kept") == "8"


def test_joining_running_servers_is_cheap(home: Path) -> None:
    """Given running servers, when joined and left 20 times, then it takes milliseconds and nothing piles up."""
    with EmbeddedServers.start(home):
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        durations_s = []
        for _ in range(20):
            began_s = time.monotonic()
            EmbeddedServers.start(home).close()
            durations_s.append(time.monotonic() - began_s)

        assert sorted(durations_s)[10] < 0.1
        # The process of the tests may open something meanwhile; 20 joins that each leave one would show.
        assert len(list(Path("/proc/self/fd").iterdir())) < descriptors + 10


def test_commands_in_a_row_find_the_servers_still_running(home: Path, layout: Layout) -> None:
    """Given servers without users for less than the linger time, when joined again, then nothing was restarted."""
    with EmbeddedServers.start(home):
        first = ready_state(layout)

    time.sleep(LINGER_S / 3)

    with EmbeddedServers.start(home):
        assert ready_state(layout) == first


def test_a_killed_postgres_comes_back_with_what_was_committed(home: Path, layout: Layout) -> None:
    """Given a session busy in a loop, when the postmaster is killed with -9, then it is back, and nothing lost."""
    with EmbeddedServers.start(home) as servers, closing(psycopg.connect(servers.database_url)) as busy:
        _sql(servers, "CREATE TABLE committed AS SELECT 1 AS number")
        busy_pid = busy.info.backend_pid
        busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 20000000000)")
        before = ready_state(layout)
        address = servers.database_url

        kill9(before.postgres_pid)
        began_s = time.monotonic()

        after = ready_state(layout, other_than=before)
        assert wait_until(partial(_answers_sql, servers), 10)
        assert time.monotonic() - began_s < 10
        assert after.postgres_pid != before.postgres_pid
        assert after.valkey_pid == before.valkey_pid
        assert servers.database_url == address
        assert is_gone(busy_pid)
        assert _sql(servers, "SELECT number FROM committed") == 1


def test_a_killed_valkey_comes_back_with_its_keys(home: Path, layout: Layout) -> None:
    """Given a key, when Valkey is killed with -9, then it is back at the same address with the key."""
    with EmbeddedServers.start(home) as servers:
        with redis.Redis.from_url(servers.redis_url) as client:
            client.set("hint", "17")
        before = ready_state(layout)

        kill9(before.valkey_pid)

        after = ready_state(layout, other_than=before)
        assert after.postgres_pid == before.postgres_pid
        with redis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
            assert client.get("hint") == "17"
            assert client.config_get("appendonly", "port", "maxmemory-policy") == {
                "appendonly": "yes",
                "port": "0",
                "maxmemory-policy": "noeviction",
            }


def test_a_killed_supervisor_is_replaced_by_its_users(home: Path, layout: Layout) -> None:
    """Given three users, when the supervisor is killed with -9, then one other takes over and the servers are back."""
    with EmbeddedServers.start(home) as servers:
        others = [UserProcess(home), UserProcess(home)]
        assert all("database_url" in other.answer for other in others)
        before = ready_state(layout)
        log_length = len(layout.supervisor_log.read_text())

        kill9(before.supervisor_pid)

        after = ready_state(layout, other_than=before)
        assert after.supervisor_pid != before.supervisor_pid
        assert is_gone(before.postgres_pid)
        assert is_gone(before.valkey_pid)
        assert _answers_sql(servers)
        assert layout.supervisor_log.read_text()[log_length:].count("begins for") == 1
        for other in others:
            other.leave()


def test_servers_end_when_everybody_is_killed(home: Path, layout: Layout) -> None:
    """Given a user, when it and the supervisor are killed with -9 together, then the servers do not go on for ever."""
    user = UserProcess(home)
    assert "database_url" in user.answer
    state = ready_state(layout)
    assert state.postgres_pid in server_processes(layout)

    user.kill9()
    kill9(state.supervisor_pid)

    wait_until_stopped(layout, 10)
    assert is_gone(state.postgres_pid)
    assert is_gone(state.valkey_pid)


def test_a_data_folder_that_was_half_made_is_made_again(fresh_home: Path) -> None:
    """Given everything killed with -9 while the data folder is being made, when started again, then it works."""
    user = UserProcess(fresh_home)
    layout = open_layout(fresh_home)
    draft = layout.postgres / "data.new"
    assert wait_until((draft / "base").exists, 30)
    supervisor_pid = _supervisor_so_far(layout)
    user.kill9()
    kill9(supervisor_pid)
    assert draft.exists()
    assert not layout.data.exists()

    with EmbeddedServers.start(fresh_home) as servers:
        assert _sql(servers, "SELECT current_database()") == "position_ledger"
        assert not draft.exists()


def test_a_process_number_used_again_does_not_keep_postgres_from_starting(home: Path, layout: Layout) -> None:
    """Given a postmaster.pid that names a process that lives and is another, when started, then it is not believed."""
    with EmbeddedServers.start(home):
        lines = (layout.data / "postmaster.pid").read_text().splitlines()
    stop_now(layout)
    victim = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    stale = layout.data / "postmaster.pid"
    stale.write_text("\n".join([str(victim.pid), *lines[1:]]) + "\n")
    os.chown(stale, layout.data.stat().st_uid, -1)

    with EmbeddedServers.start(home) as servers:
        assert _answers_sql(servers)

    assert victim.poll() is None
    victim.communicate()


def test_a_data_folder_of_another_version_is_refused_and_untouched(home: Path, layout: Layout) -> None:
    """Given data of another major version, when started, then one sentence says so; put right, it starts."""
    with EmbeddedServers.start(home):
        pass
    stop_now(layout)
    version = layout.data / "PG_VERSION"
    version.write_text("17\n")
    try:
        with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 17 and the installed one is 18; dump it"):
            EmbeddedServers.start(home)
    finally:
        version.write_text("18\n")
    with EmbeddedServers.start(home) as servers:
        assert _answers_sql(servers)


def test_a_server_that_cannot_start_is_reported_with_its_log(home: Path, layout: Layout) -> None:
    """Given a damaged data folder, when started, then the error carries the last lines of PostgreSQL's log."""
    with EmbeddedServers.start(home):
        pass
    stop_now(layout)
    control = layout.data / "global" / "pg_control"
    aside = control.rename(control.with_name("aside"))
    try:
        with pytest.raises(DatabaseUnavailable, match=r"PostgreSQL did not start: .*pg_control"):
            EmbeddedServers.start(home)
    finally:
        aside.rename(control)
    wait_until_stopped(layout)


def test_a_home_that_cannot_be_made_is_refused_in_words() -> None:
    """Given a home below a file, when started, then one sentence names it and the setting to change."""
    with pytest.raises(ConfigurationError, match=r"/dev/null/ledger.*POSITION_LEDGER_HOME"):
        EmbeddedServers.start(Path("/dev/null/ledger"))


def test_a_removed_home_takes_its_servers_along_and_starts_empty(fresh_home: Path, home: Path) -> None:
    """Given running servers, when their folder is removed, then they end, though a process still holds them."""
    with EmbeddedServers.start(fresh_home) as servers:
        layout = Layout(fresh_home, servers.place)
        state = ready_state(layout)

        shutil.rmtree(fresh_home)

        assert wait_until(lambda: is_gone(state.postgres_pid) and is_gone(state.valkey_pid), 10)
        assert wait_until(lambda: is_gone(state.supervisor_pid), 10)
    assert home != fresh_home


def test_a_pipe_of_the_caller_ends_with_the_caller(home: Path, layout: Layout) -> None:
    """Given servers that linger, when the command that started them ends, then nobody else holds its output open."""
    stop_now(layout)

    done = subprocess.run(
        [sys.executable, "-c", USER, str(home)],
        input="",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=True,
    )

    assert "database_url" in done.stdout
    assert done.stderr == ""
    assert server_processes(layout), "they linger, so the end of the pipe was not the end of them"


def test_a_forked_child_that_lives_on_keeps_the_servers(home: Path, layout: Layout) -> None:
    """Given a child forked from a user, when the user ends, then the servers go on until the child ends too."""
    code = USER.replace("sys.stdin.read()", "import os\nif os.fork(): os._exit(0)\nsys.stdin.read()")
    user = UserProcess(home, code=code)
    assert "database_url" in user.answer
    state = ready_state(layout)

    time.sleep(LINGER_S + 1)  # longer than servers without users go on

    assert ready_state(layout) == state
    user.leave()
    wait_until_stopped(layout, LINGER_S + 7)


@pytest.mark.uncounted
def test_a_program_started_by_a_user_does_not_keep_the_servers(home: Path, layout: Layout) -> None:
    """Given a long-lived program started by a user, when the user leaves, then the servers stop all the same."""
    with EmbeddedServers.start(home):
        program = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)

    wait_until_stopped(layout, LINGER_S + 7)

    assert program.poll() is None
    program.communicate()


def test_stop_by_hand(home: Path, layout: Layout) -> None:
    """Given servers, when stopped by hand, then refused while in use and done at once when nobody uses them."""
    command = [sys.executable, "-m", "position_ledger.embedded"]

    def run(action: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, action, str(home)], capture_output=True, text=True, env=environment(), check=False
        )
        return done.returncode, done.stdout

    with EmbeddedServers.start(home) as servers:
        assert run("status")[0] == 0
        assert servers.database_url in run("status")[1]
        assert run("stop") == (1, "in use; they stop by themselves when the last process that uses them has ended\n")
    assert run("stop") == (0, "stopped\n")
    assert not server_processes(layout)
    assert run("status")[0] == 1


def test_a_terminated_supervisor_stops_the_servers_cleanly(home: Path, layout: Layout) -> None:
    """Given a machine that shuts down, when the supervisor gets SIGTERM, then PostgreSQL checkpoints before it ends."""
    user = UserProcess(home)
    assert "database_url" in user.answer
    state = ready_state(layout)
    log_length = len((layout.control / "postgres.log").read_text())
    user.kill9()

    os.kill(state.supervisor_pid, signal.SIGTERM)

    wait_until_stopped(layout, LINGER_S)
    assert "database system is shut down" in (layout.control / "postgres.log").read_text()[log_length:]
