"""Exporting: only what is new, nothing twice after a kill, never two ledgers in one archive."""

from __future__ import annotations

import fcntl
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from msgspec import structs

from position_ledger import Ledger
from position_ledger.archive import exporting, layout, writing
from position_ledger.archive.exporting import slices
from position_ledger.embedded.temporary import TemporaryPostgres
from position_ledger.settings import load_settings
from tests.support import engine, only_positions
from tests.support.command_line import MAIN, CommandLine, in_this_process, on
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger.settings import Settings
    from position_ledger.testing.databases import Template

WITHOUT_PYARROW = f"import sys; sys.modules['pyarrow'] = None; {MAIN}"


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


@pytest.fixture
def run(settings: Settings) -> CommandLine:
    return in_this_process(str(settings.database_url))


@pytest.fixture
def history(ledger: Ledger) -> Traffic:
    traffic = Traffic(ledger, 3)
    traffic.run(60)
    return traffic


def test_an_empty_log_and_one_that_was_archived_write_nothing(run: CommandLine, ledger: Ledger, tmp_path: Path) -> None:
    folder = str(tmp_path / "archive")
    assert run("archive", "export", folder).out == "the log is empty\n"
    Traffic(ledger, 1).run(5)
    document = run("archive", "export", folder, "--json").document
    assert (document["segment"], document["events"]) == (1, document["total_events"])
    before = layout.read_manifest(tmp_path / "archive")
    assert run("archive", "export", folder).out.startswith("nothing new: ")
    assert layout.read_manifest(tmp_path / "archive") == before
    assert run("archive", "verify", folder, "--against-log").code == 0


@pytest.mark.parametrize("at", ["finish", "write_manifest"])
def test_an_export_that_was_killed_goes_on_where_it_was(
    run: CommandLine, history: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    # given an export that ends at its fifth file, or before its manifest; a half-written file is left
    folder, done = tmp_path / "archive", 0
    owner: Any = writing.PartWriter if at == "finish" else layout
    real = getattr(owner, at)

    def killed(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == (5 if at == "finish" else 2):
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, at, killed)
        with pytest.raises(Killed):
            run("archive", "export", str(folder))
    begun = layout.read_manifest(folder)
    assert begun.pending is not None
    left = {path: path.stat().st_ino for path in folder.rglob("*.parquet")}
    assert left
    # when the log goes on and the export is run again
    history.run(20)
    answer = run("archive", "export", str(folder))
    # then it ends where it was to end, and has kept what was finished
    assert answer.code == 0, answer
    assert "going on with segment 1" in answer.err
    assert layout.read_manifest(folder).upto == begun.pending.upto
    assert {path: path.stat().st_ino for path in left} == left
    # and the next one has the rest
    assert run("archive", "export", str(folder)).out.startswith("segment 2: ")
    assert not list(folder.rglob(f"*{layout.UNFINISHED}"))
    assert run("archive", "verify", str(folder), "--against-log").code == 0


def test_the_archive_of_another_ledger_is_refused(
    run: CommandLine, history: Traffic, tmp_path: Path, ledger_template: Template
) -> None:
    folder = str(tmp_path / "archive")
    assert run("archive", "export", folder).code == 0
    with ledger_template.clone() as url:
        with Ledger.open(database_url=url, redis_url="redis://127.0.0.1:1/0") as other:
            Traffic(other, 2).run(5)
        strange = in_this_process(url)
        for command in (
            ("archive", "export", folder),
            ("archive", "verify", folder, "--against-log"),
            ("rebuild-projection", "positions", "--archive", folder),
        ):
            answer = strange(*command)
            assert answer.code == 2, answer
            assert f"{folder} is the archive of another ledger" in answer.err


@pytest.mark.parametrize(
    ("restored", "grows", "sentence"),
    [
        ("SELECT setval('events_notification_id_seq', 30)", 0, "the log ends at event 30 and the archive at"),
        ("DELETE FROM events WHERE notification_id > 30", 9, "is not that of the log"),
        (
            "SELECT setval('events_notification_id_seq', nextval('events_notification_id_seq') - 3)",
            9,
            "was not there when",
        ),
    ],
    ids=["the log is shorter", "other events came", "numbers that were not used are"],
)
def test_a_log_that_was_set_back_is_refused(
    run: CommandLine,
    history: Traffic,
    settings: Settings,
    tmp_path: Path,
    restored: str,
    grows: int,
    sentence: str,
) -> None:
    # given an archive that ends behind numbers that appends took and rolled back
    folder = str(tmp_path / "archive")
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("SELECT nextval('events_notification_id_seq') FROM generate_series(1, 5)")
        assert run("archive", "export", folder).code == 0
        # when the database becomes that of an older backup, and life goes on there
        owner.execute("SET session_replication_role = replica")
        owner.execute(restored.encode())
    if grows:
        with Ledger(settings, engine.reached(settings)) as ledger:
            Traffic(ledger, 77).run(grows)
    # then the archive neither goes on nor is rebuilt from: events would be missing
    for command in (("archive", "export"), ("rebuild-projection", "positions", "--archive")):
        answer = run(*command, folder)
        assert answer.code == 2, answer
        assert sentence in answer.err
        assert "restored from an older backup" in answer.err


def test_a_folder_with_something_else_and_one_in_use_are_refused(
    run: CommandLine, history: Traffic, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    answer = run("archive", "export", str(tmp_path))
    assert answer.code == 2
    assert "is no archive and not empty, it has notes.txt" in answer.err
    assert "has no manifest.json" in run("archive", "verify", str(tmp_path)).err
    folder = tmp_path / "archive"
    folder.mkdir()
    with (folder / layout.LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = run("archive", "export", str(folder))
    assert answer.code == 2
    assert "another export into" in answer.err


@pytest.mark.uncounted
def test_on_a_standby_an_export_ends_where_its_tables_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind a replayed checkpoint is whole; of what is before it a standby cannot know."""
    monkeypatch.setenv("POSITION_LEDGER_PROJECTIONS", only_positions.MODULE)
    with TemporaryPostgres(is_durable=False) as server:
        # given projected events, and more that are not projected, on a server that becomes a standby
        settings = load_settings(database_url=server.database_url, redis_url=NO_QUEUE)
        engine.migrate(settings)
        with Ledger(settings, engine.reached(settings)) as ledger:
            traffic = Traffic(ledger, 4)
            projected = traffic.run(30)
            engine.project_all(settings)
            assert traffic.run(30) > projected
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        # when it is asked for an export, twice
        run, folder = in_this_process(server.database_url), tmp_path / "archive"
        first, second = (run("archive", "export", str(folder)) for _ in range(2))
        # then it has what is projected there
        assert first.code == 0, first
        assert layout.read_manifest(folder).upto == projected
        assert second.out == f"nothing new: {folder} has every event up to {projected}\n"
        assert run("archive", "verify", str(folder), "--against-log").code == 0
        # and an archive that is further is not taken for that of another history
        further = layout.read_manifest(folder)
        pending = layout.Pending(2, projected, projected + 9, layout.Event(projected + 9, uuid4()))
        layout.write_manifest(folder, structs.replace(further, pending=pending))
        refused = run("archive", "export", str(folder))
        assert refused.code == 2
        assert f"has replayed the projected events up to {projected}" in refused.err


def test_without_pyarrow_the_sentence_says_what_to_install(run: CommandLine, tmp_path: Path) -> None:
    answer = run("archive", "export", str(tmp_path / "archive"), entry=WITHOUT_PYARROW)
    assert answer.code == 2
    assert "an archive needs pyarrow, which is not installed: pip install 'position-ledger[archive]'" in answer.err
    assert not (tmp_path / "archive").exists()


@pytest.mark.uncounted
def test_no_command_but_those_of_the_archive_loads_pyarrow() -> None:
    code = "import sys, position_ledger.operations, position_ledger.cli.archive; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_parts_in_a_row_are_read_together_as_long_as_they_are_few_events() -> None:
    everything = list(range(64))
    assert list(slices(everything, 1000)) == [(0, 63)]
    assert list(slices(everything, 64 * exporting.SLICE_EVENTS)) == [(part, part) for part in everything]
    assert list(slices([0, 1, 2, 5, 6, 9], exporting.SLICE_EVENTS * 32)) == [(0, 1), (2, 2), (5, 6), (9, 9)]


@pytest.mark.soak
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_kills_at_random_instants_lose_and_double_nothing(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    # given a log of some thousand events, while exports of it are killed again and again
    dice, folder, killed = random.Random(11), tmp_path / "archive", 0
    traffic, processes = Traffic(ledger, 12), on(str(settings.database_url))
    for _ in range(20):
        traffic.run(100)
        with processes.start("archive", "export", str(folder)) as process:
            try:
                process.wait(dice.uniform(0.3, 1.6))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            process.communicate()
    assert killed > 3
    # when the last ones are left alone
    run = in_this_process(str(settings.database_url))
    for _ in range(2):
        assert run("archive", "export", str(folder)).code == 0
    # then the archive is the log
    answer = run("archive", "verify", str(folder), "--against-log")
    assert answer.code == 0, answer
    assert f"events up to {traffic.token} of" in answer.out
