"""The archive: everything that is in the log, nothing else, and the same tables from it, byte by byte."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from msgspec import structs
from psycopg.sql import SQL, Identifier

from position_ledger import archive
from position_ledger.archive import layout, open_archive
from position_ledger.archive.arrow import LOG_COLUMNS
from position_ledger.projection import chunk_ledger, loading
from position_ledger.projection.definition import load_projections
from position_ledger.projection.load_crew import load
from tests.support import engine
from tests.support.forging import a_part, manifest_with, only_first_segment, with_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from position_ledger.archive import ArchiveReport
    from position_ledger.archive.arrow import Row
    from position_ledger.projection.definition import Projection
    from tests.integration.archive.conftest import World


def archived(folder: Path) -> list[dict[str, Any]]:
    """Every row of every file, as another reader of Parquet sees it."""
    import pyarrow.parquet as pq

    files = sorted(folder.rglob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def scalar(world: World, statement: str) -> Any:
    with psycopg.connect(world.url, options="-c search_path=ledger") as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


# What is in it


def test_every_column_of_every_event_is_in_it_exactly(world: World) -> None:
    manifest = layout.read_manifest(world.folder)
    with psycopg.connect(world.url, options="-c search_path=ledger -c timezone=UTC") as connection:
        cursor = connection.execute(
            "SELECT e.notification_id, uuid_send(e.originator_id), e.originator_version, e.topic, e.state,"
            " uuid_send(e.event_id), e.recorded_at, e.effective_at, e.stream_hash, e.metadata::text FROM events AS e"
            " WHERE e.notification_id <= %s ORDER BY e.notification_id",
            (manifest.upto,),
        )
        logged = cursor.fetchall()
    rows = sorted(archived(world.folder), key=lambda row: row["notification_id"])
    assert [tuple(row[column] for column in LOG_COLUMNS) for row in rows] == logged
    assert len(rows) == manifest.events > 300
    assert any(row["refs"] for row in rows)


def test_an_archive_has_each_column_of_the_log(world: World) -> None:
    """A migration that adds a column to the log has to decide about the archive: bump its format."""
    columns = scalar(
        world,
        "SELECT array_agg(attname::text) FROM pg_attribute"
        " WHERE attrelid = 'events'::regclass AND attnum > 0 AND NOT attisdropped",
    )
    assert sorted(columns) == sorted(LOG_COLUMNS)


def test_what_is_told_of_an_export(world: World) -> None:
    first, second = layout.read_manifest(world.folder).segments
    assert world.said[0].startswith(f"segment 1: {first.events:,} events with numbers 1 to {first.upto} in ")
    assert f"segment 2: {second.events:,} events with numbers {first.upto + 1} to {second.upto} in " in world.said[1]
    assert f"{world.folder} has {first.events + second.events:,} events up to {second.upto}" in world.said[1]


# The same tables


def tables_from(
    world: World,
    schema: str,
    history: loading.History | None,
    upto: int,
    parts: int,
    chosen: Sequence[Projection[Any]],
) -> None:
    """Load tables into schemas of their own, in so many parts."""
    with engine.connected(world.settings, as_app=False) as owner:
        for projection in chosen:
            place = f"{schema}_{projection.table}"
            owner.execute(SQL("CREATE SCHEMA {}").format(Identifier(place)))
            owner.execute(
                SQL("CREATE TABLE {} (LIKE {})").format(
                    Identifier(place, projection.table), Identifier("ledger", projection.table)
                )
            )
            chunk_ledger.create(owner, place, upto, parts)
            load(world.url, world.settings, projection, place, processes=1, history=history)


def rows_in(world: World, projection: Projection[Any], schema: str) -> list[tuple[str, ...]]:
    with engine.connected(world.settings, as_app=False) as connection:
        return engine.table_rows(connection, projection, schema)


@pytest.mark.uncounted
def test_every_table_comes_from_the_archive_as_from_the_log_and_nothing_reads_the_log(world: World) -> None:
    """With larger parts than the archive has, and with smaller ones up to a number in the middle of a segment."""
    # given transfers, pairs, splits, busts and accounts, in two segments
    opened = open_archive(world.folder)
    everything = load_projections(world.settings.projections)
    with_refs = [one for one in everything if one.table == "account_balance"]
    for schema, upto, parts, chosen in (
        ("whole", opened.upto, 8, everything),
        ("less", opened.upto - 100, 256, with_refs),
    ):
        tables_from(world, f"log_{schema}", None, upto, 4, chosen)
        # when the tables are loaded from the archive while there is no table events
        with engine.connected(world.settings, as_app=False) as owner:
            owner.execute("ALTER TABLE events RENAME TO hidden")
            try:
                tables_from(world, f"archive_{schema}", opened, upto, parts, chosen)
            finally:
                owner.execute("ALTER TABLE hidden RENAME TO events")
        # then every column of every row is the same
        for projection in chosen:
            logged = rows_in(world, projection, f"log_{schema}_{projection.table}")
            assert rows_in(world, projection, f"archive_{schema}_{projection.table}") == logged
            assert logged or projection.table in {"edges", "game_states"}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_rebuild_loads_from_the_archive_and_takes_the_tail_from_the_log(world: World, processes: str) -> None:
    # given an archive that ends before the log does
    opened = open_archive(world.folder)
    assert scalar(world, "SELECT max(notification_id) FROM events") > opened.upto
    positions = engine.positions_of(world.settings)
    before = rows_in(world, positions, "ledger")
    # when a table is rebuilt from it
    answer = world.run("rebuild-projection", "positions", "--archive", str(world.folder), "--processes", processes)
    # then it is swapped in, byte by byte the same, and the parts came from the archive
    assert answer.code == 0, answer
    assert f" events of archive {world.folder} in " in answer.err
    assert rows_in(world, positions, "ledger") == before


def test_workers_are_not_asked_to_read_the_log_for_a_rebuild_from_an_archive(world: World) -> None:
    answer = world.run("rebuild-projection", "positions", "--archive", str(world.folder), "--workers", "1")
    assert answer.code == 2
    assert "--workers would read the log that --archive is to spare" in answer.err


# Proving it


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    """An archive that a test may damage."""
    return Path(shutil.copytree(world.folder, tmp_path / "copy"))


def a_file(folder: Path, segment: int = 1) -> Path:
    return sorted(layout.segment_folder(folder, segment).glob("*.parquet"))[3]


def test_an_archive_holds_and_equals_the_log(world: World) -> None:
    answer = world.run("archive", "verify", str(world.folder), "--against-log")
    assert answer.code == 0, answer
    assert answer.out.endswith("checksums, counts, versions and hashes hold, and equals the log\n")
    document = world.run("archive", "verify", str(world.folder), "--json").document
    assert document["holds"]
    assert document["events"] == layout.read_manifest(world.folder).events


def test_one_changed_byte_is_found_wherever_it_is(world: World, copy: Path) -> None:
    path = a_file(copy)
    whole = path.read_bytes()
    for place in (0, len(whole) // 3, 2 * len(whole) // 3, len(whole) - 1):
        raw = bytearray(whole)
        raw[place] ^= 1
        path.write_bytes(raw)
        report = archive.verify(copy)
        assert report.problems == (
            f"{path} is not as it was written, its checksum differs from that of the manifest: take it from a copy of the "
            "archive, or export into a new folder",
        )
    answer = world.run("archive", "verify", str(copy))
    assert answer.code == 1
    assert answer.out.startswith(report.problems[0])
    assert answer.out.endswith("and 1 problem\n")
    # and nothing is begun with it
    refused = world.run("rebuild-projection", "positions", "--dry-run", "--archive", str(copy))
    assert refused.code == 2
    assert report.problems[0] in refused.err
    assert "building generation" not in refused.err


def test_what_is_missing_cut_off_or_of_another_export_is_named(world: World, copy: Path) -> None:
    missing = a_file(copy)
    missing.unlink()
    assert f"{missing} is missing" in world.run("archive", "verify", str(copy)).out
    shutil.copy(a_file(world.folder, 2), missing)
    assert "cut off or of another export" in world.run("archive", "verify", str(copy)).out


def edited(folder: Path, *names: str | int, value: Any) -> None:
    """Change a value of the manifest, as one who does not know its checksum."""
    path = folder / layout.MANIFEST
    whole = place = json.loads(path.read_text(encoding="utf-8"))
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    path.write_text(json.dumps(whole), encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "value", "sentence"),
    [
        (("format",), 0, "has format 0 and this release reads format 1"),
        (("segments", 0, "events"), 1, "manifest.json is not as it was written"),
        (("segments", 0, "colour"), 1, "manifest.json is not as it was written"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(
    world: World, copy: Path, names: tuple[str | int, ...], value: Any, sentence: str
) -> None:
    edited(copy, *names, value=value)
    for command in (("archive", "verify"), ("archive", "export")):
        answer = world.run(*command, str(copy))
        assert answer.code == 2
        assert sentence in answer.err
        assert answer.err.count("\n") == 1


def test_a_difference_from_the_log_is_named_with_event_and_column(world: World) -> None:
    # given an event that somebody with the rights of the owner has changed after it was archived
    with psycopg.connect(world.url, autocommit=True, options="-c search_path=ledger") as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("CREATE TABLE kept AS SELECT notification_id, effective_at FROM events WHERE notification_id = 9")
        owner.execute("UPDATE events SET effective_at = effective_at + '1 us' WHERE notification_id = 9")
        try:
            # when they are compared
            answer = world.run("archive", "verify", str(world.folder), "--against-log")
        finally:
            owner.execute(
                "UPDATE events AS e SET effective_at = k.effective_at FROM kept AS k"
                " WHERE e.notification_id = k.notification_id"
            )
            owner.execute("DROP TABLE kept")
    # then it is named
    assert answer.code == 1
    assert "event 9 (version " in answer.out
    assert "effective_at is " in answer.out


# What every checksum agrees with and is wrong all the same: a broken export, or somebody who knows how they are made


@pytest.fixture
def alone(copy: Path) -> Path:
    """The first export alone, which a test may forge."""
    only_first_segment(copy)
    assert archive.verify(copy).holds
    return copy


def named(row: Row) -> str:
    return f"event {row.number} (version {row.version} of stream {UUID(bytes=row.stream)})"


FORGED: dict[str, tuple[int, Callable[[Row], Row], str]] = {
    "a body": (1, lambda row: row._replace(state=row.state + b" "), "topic, body or metadata is not what its hash"),
    "a topic": (0, lambda row: row._replace(topic="other.topic"), "topic, body or metadata is not what its hash"),
    "who did it": (
        2,
        lambda row: row._replace(metadata='{"actor": "nobody"}'),
        "topic, body or metadata is not what its",
    ),
    "what is no JSON": (1, lambda row: row._replace(metadata="{"), "its metadata is not JSON"),
    "a number": (
        1,
        lambda row: row._replace(number=row.opened),
        "its number does not rise, the version before it has ",
    ),
    "an opening": (1, lambda row: row._replace(opened=row.opened + 1), "the number of its stream's first event is "),
    "an own opening": (0, lambda row: row._replace(opened=row.number + 1), "first event is not its own"),
    "a later version": (1, lambda row: row._replace(version=3), "version 3 follows version 1"),
    "a first version": (0, lambda row: row._replace(version=2), "version 2 is the first of its stream"),
}
"""Which event of a stream is another one, and what is said of it."""


def test_a_forged_event_is_named_with_what_is_wrong_with_it(alone: Path) -> None:
    file = a_part(alone)
    for place, change, words in FORGED.values():
        # given an archive in which one value of one event is another one
        row = file.write_one(place, change)
        # when it is proven
        (problem,) = archive.verify(alone).problems
        # then that event is named, and no other
        assert problem.startswith(f"{named(row)}: ")
        assert words in problem


def test_events_that_are_missing_or_out_of_order_are_named(alone: Path) -> None:
    file = a_part(alone)
    first, second, third = file.rows[file.at : file.at + 3]
    # given a stream that lacks an event
    file.write([row for row in file.rows if row != second])
    assert archive.verify(alone).problems == (f"{named(third)}: version 3 follows version 1",)
    file.write([row for row in file.rows if row != first])
    assert archive.verify(alone).problems == (f"{named(second)}: version 2 is the first of its stream",)
    # given streams the wrong way round: what merges files by stream would miss events
    streams = [row.stream for row in file.rows]
    at = next(place for place, (one, other) in enumerate(pairwise(streams), 1) if one != other)
    file.write([*file.rows[at:], *file.rows[:at]])
    (problem,) = archive.verify(alone).problems
    assert problem == f"{named(file.rows[0])}: its stream is out of order in part {file.file.part}"


def test_a_file_of_another_ledger_or_of_no_archive_is_named(alone: Path) -> None:
    file, other = a_part(alone), str(UUID(int=7))
    first = layout.read_manifest(alone).first.event_id
    # given the same events, written into an archive of another ledger
    file.write(file.rows, ledger=other)
    (problem,) = archive.verify(alone).problems
    assert problem == (
        f"{file.path} says that it is of ledger {other} and the manifest says {first}: it is of another export"
    )
    # given something else than Parquet
    resealed(file.path, alone, b"no archive" * 9)
    (problem,) = archive.verify(alone).problems
    assert problem == f"{file.path} says that it is of format None and the manifest says 1: it is of another export"


def test_a_file_whose_rows_cannot_be_read_is_named(world: World, alone: Path) -> None:
    # given a file whose first page is overwritten, and what it says of itself is whole
    path = a_part(alone).path
    raw = path.read_bytes()
    resealed(path, alone, raw[:4] + bytes(60) + raw[64:])
    # when it is proven, alone and against the log
    report = against_log(world, alone)
    # then both say so in a sentence
    alone_said, compared = report.problems
    assert alone_said.startswith(f"{path} cannot be read as Parquet (")
    assert f": {path} cannot be read as Parquet (" in compared


def resealed(path: Path, folder: Path, raw: bytes) -> None:
    """Have those bytes in a file, with the right checksum in the manifest, and another digest of its rows."""
    path.write_bytes(raw)
    file = chosen_file(folder, path)
    changed = structs.replace(
        file, size=len(raw), sha256=layout.sha256_of(path), digest=f"{int(file.digest, 16) ^ 1:016x}"
    )
    manifest_with(folder, 1, **with_file(layout.read_manifest(folder).segments[0], changed))


def chosen_file(folder: Path, path: Path) -> layout.File:
    files = layout.read_manifest(folder).segments[0].files
    return next(file for file in files if layout.file_path(folder, 1, file.part) == path)


def test_a_manifest_that_counts_otherwise_than_its_files_is_named(world: World, copy: Path) -> None:
    segment, second = layout.read_manifest(copy).segments
    # given segments that do not follow each other
    manifest_with(copy, 2, after=segment.upto + 1)
    assert archive.verify(copy).problems[0] == (
        f"segment 2 does not follow segment 1, which ends at event {segment.upto}"
    )
    manifest_with(copy, 2, after=second.after)
    # given a segment that has fewer events than its files
    manifest_with(copy, 1, events=segment.events - 1)
    assert archive.verify(copy).problems == (
        f"segment 1 has {segment.events - 1:,} events and its files have another number",
    )
    # given a file that has more rows than it should have
    file = segment.files[0]
    path = layout.file_path(copy, 1, file.part)
    manifest_with(copy, 1, **with_file(segment, structs.replace(file, rows=file.rows - 1)))
    assert archive.verify(copy).problems == (
        f"{path} has {file.rows} rows of its segment and the manifest says {file.rows - 1}",
    )
    # given one that should have others
    manifest_with(copy, 1, **with_file(segment, structs.replace(file, digest="0" * 16)))
    report = against_log(world, copy)
    assert report.problems == (
        f"{path} has other rows than the manifest says",
        f"segment 1, part {file.part}: the digests differ and the rows do not, so a file was changed meanwhile",
    )


def test_no_more_problems_are_told_than_anybody_reads(alone: Path) -> None:
    files = sorted(alone.rglob("*.parquet"))
    for path in files:
        path.unlink()
    problems = archive.verify(alone).problems
    assert len(files) > len(problems) == 20
    assert [problem.split()[0] for problem in problems] == [str(path) for path in files[:20]]


def test_what_is_no_failure_is_noted(world: World, copy: Path) -> None:
    # given an export that was killed, and a file that somebody put beside the others
    manifest = layout.read_manifest(copy)
    last = manifest.segments[-1].last
    pending = layout.Pending(number=3, after=manifest.upto, upto=manifest.upto + 9, last=last)
    layout.write_manifest(copy, structs.replace(manifest, pending=pending))
    unfinished = layout.segment_folder(copy, 3)
    unfinished.mkdir()
    (unfinished / "part-00.parquet").touch()
    stranger = layout.segment_folder(copy, 1) / "mine.parquet"
    stranger.touch()
    # when it is proven, then it holds, and both are told, with what to do
    report = archive.verify(copy)
    assert report.holds
    assert report.notes == (
        f"an export was interrupted (segment 3, up to event {pending.upto}): run position-ledger archive export {copy} to"
        " finish it",
        f"{stranger} is not in the manifest and is not read (1 such files)",
    )
    answer = world.run("archive", "verify", str(copy))
    assert answer.code == 0
    assert all(note in answer.out + answer.err for note in report.notes)


def against_log(world: World, folder: Path) -> ArchiveReport:
    with engine.connected(world.settings, as_app=False) as owner:
        return archive.compare_with_log(owner, archive.verify(folder))


def test_an_archive_that_holds_and_is_not_the_log_is_told_from_it(world: World, alone: Path) -> None:
    file = a_part(alone)
    place = f"segment 1, part {file.file.part}: "
    stream = [row for row in file.rows if row.stream == file.rows[file.at].stream]
    # given an archive without the last event of a stream: nothing in it is wrong
    file.write([row for row in file.rows if row != stream[-1]])
    assert archive.verify(alone).holds
    assert against_log(world, alone).problems == (f"{place}the log has {named(stream[-1])} and the archive does not",)
    # given one with an event that never was
    extra = stream[-1]._replace(version=stream[-1].version + 1)
    at = file.at + len(stream)
    file.write([*file.rows[:at], extra, *file.rows[at:]])
    assert against_log(world, alone).problems[-1] == f"{place}the archive has {named(extra)} and the log does not"
    # given one with another body, hash or topic
    said = {
        "state": (b"{}", f"state is {stream[0].state.decode()[:80]!r} in the log, '{{}}' in the archive"),
        "stream_hash": (
            bytes(32),
            f"stream_hash is {stream[0].stream_hash.hex()} in the log, {'00' * 32} in the archive",
        ),
        "topic": ("t" * 90, f"topic is {stream[0].topic[:80]} in the log, {'t' * 80} in the archive"),
    }
    for field, (value, words) in said.items():
        row = file.write_one(0, methodcaller("_replace", **{field: value}))
        assert against_log(world, alone).problems[-1] == f"{place}{named(row)}: {words}"
