"""What is said of an archive whose files are as written and whose rows are not a whole log: each kind of damage, by name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from position_ledger.archive.arrow import Row, row_digest
from position_ledger.archive.layout import Event, File, Manifest, Segment
from position_ledger.archive.verifying import PartCheck, manifest_problems, row_difference
from position_ledger.store.envelope import NO_HASH, chain

PART = 3
NOON_US = 1_772_366_400_000_000
FIRST, SECOND = (bytes([PART << 2, number]) + bytes(14) for number in (1, 2))
ELSEWHERE = bytes([(PART + 1) << 2]) + bytes(15)


def stream(name: bytes, *numbers: int) -> list[Row]:
    """A stream with one event for each number, whole and true."""
    rows, last = [], NO_HASH
    for version, number in enumerate(numbers, 1):
        state = f'{{"n": {number}}}'.encode()
        last = chain(last, UUID(bytes=name), version, "position.marked", state, {"actor": "desk"})
        event_id = number.to_bytes(16, "big")
        metadata = '{"actor": "desk"}'
        rows.append(
            Row(
                number,
                name,
                version,
                "position.marked",
                state,
                event_id,
                NOON_US,
                NOON_US,
                last,
                metadata,
                numbers[0],
                (),
            )
        )
    return rows


def segment(number: int, after: int, upto: int, *files: File, events: int | None = None) -> Segment:
    counted = sum(file.rows for file in files) if events is None else events
    last = Event(upto, UUID(int=upto))
    return Segment(number, after, upto, counted, last, "1.0", datetime(2026, 3, 1, tzinfo=UTC), files)


def file_of(written: list[Row], **changed: Any) -> File:
    digest = 0
    for row in written:
        digest ^= row_digest(row)
    told = {"part": PART, "rows": len(written), "digest": f"{digest:016x}", "size": 1, "sha256": ""}
    return File(**{**told, "first_number": 1, "last_number": 9, **changed})


def checked(rows: list[Row], *files: File) -> tuple[list[str], PartCheck]:
    check = PartCheck(PART, [(segment(1, 0, 9, *files), one) for one in files] or [(segment(1, 0, 9), file_of(rows))])
    return [problem for row in rows if (problem := check.problem_of(row))], check


def test_whole_streams_have_no_problem() -> None:
    rows = [*stream(FIRST, 1, 4), *stream(SECOND, 2, 3)]
    problems, check = checked(rows)
    assert problems == []
    assert check.streams == 2
    assert list(check.counted_wrong(Path("archive"))) == []


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([*stream(SECOND, 2), *stream(FIRST, 1)], f"its stream is out of order in part {PART}"),
        (stream(ELSEWHERE, 1), f"its stream is out of order in part {PART}"),
        (stream(FIRST, 1, 4)[1:], "version 2 is the first of its stream"),
        ([stream(FIRST, 1)[0]._replace(opened=7)], "the number of its stream's first event is not its own"),
        (stream(FIRST, 1, 4, 5)[::2], "version 3 follows version 1"),
        (stream(FIRST, 4, 2), "its number does not rise, the version before it has 4"),
        (
            [stream(FIRST, 1, 4)[0], stream(FIRST, 1, 4)[1]._replace(opened=3)],
            "the number of its stream's first event is 1, and 3 beside it",
        ),
        ([stream(FIRST, 1)[0]._replace(state=b"{}")], "topic, body or metadata is not what its hash was made of"),
        ([stream(FIRST, 1)[0]._replace(topic="position.closed")], "topic, body or metadata is not what its hash"),
        ([stream(FIRST, 1)[0]._replace(metadata='{"actor": "thief"}')], "topic, body or metadata is not what its hash"),
    ],
)
def test_each_kind_of_damage_is_named_with_its_event(rows: list[Row], sentence: str) -> None:
    problems, _ = checked(rows)
    assert len(problems) == 1
    assert problems[0].startswith(f"event {rows[-1].number} (version {rows[-1].version} of stream ")
    assert sentence in problems[0]


def test_a_file_with_other_rows_than_its_manifest_counts_is_named() -> None:
    rows = stream(FIRST, 1, 4)
    for told, sentence in (({"rows": 3}, "has 2 rows of its segment and the manifest says 3"),
                           ({"digest": f"{1:016x}"}, "has other rows than the manifest says")):  # fmt: skip
        problems, check = checked(rows, file_of(rows, **told))
        assert problems == []
        (wrong,) = check.counted_wrong(Path("archive"))
        assert "part-03" in wrong
        assert sentence in wrong


def test_segments_that_do_not_follow_each_other_are_named() -> None:
    one, two = stream(FIRST, 1, 4), stream(SECOND, 6)

    def problems(*segments: Segment) -> list[str]:
        first = Event(1, UUID(int=1))
        return list(manifest_problems(Manifest(format=1, first=first, segments=segments, pending=None)))

    assert problems(segment(1, 0, 5, file_of(one)), segment(2, 5, 9, file_of(two))) == []
    assert problems(segment(1, 0, 5, file_of(one)), segment(2, 6, 9, file_of(two))) == [
        "segment 2 does not follow segment 1, which ends at event 5"
    ]
    for parts in ([64], [-1], [3, 3], [5, 4]):
        wrong = segment(1, 0, 9, *(file_of(two, part=part) for part in parts))
        assert problems(wrong) == [
            f"segment 1 has files of parts {parts}, which are not each once and in order below 64"
        ]
    assert problems(segment(1, 0, 5, file_of(one), events=4)) == [
        "segment 1 has 4 events and its files have another number"
    ]


def test_a_difference_of_two_rows_names_event_and_column_as_people_read_it() -> None:
    ours, later = stream(FIRST, 1, 4)
    who = f"event 1 (version 1 of stream {UUID(bytes=FIRST)})"
    assert row_difference(ours, ours) is None
    assert row_difference(ours, None) == f"the archive has {who} and the log does not"
    assert row_difference(None, ours) == f"the log has {who} and the archive does not"
    assert row_difference(later, ours) == f"the log has {who} and the archive does not"
    assert row_difference(ours, later) == f"the archive has {who} and the log does not"
    for changed, sentence in (
        ({"recorded_us": NOON_US + 1}, "recorded_at is 2026-03-01T12:00:00.000001+00:00 in the log, 2026-03-01T12:00:00+00:00"),
        ({"state": b'{"n": 2}'}, """state is '{"n": 2}' in the log, '{"n": 1}' in the archive"""),
        ({"event_id": bytes(16)}, f"event_id is {bytes(16).hex()} in the log"),
        ({"topic": "x" * 200}, f"topic is {'x' * 80} in the log"),
    ):  # fmt: skip
        found = row_difference(ours, ours._replace(**changed))
        assert found is not None
        assert found.startswith(f"{who}: ")
        assert sentence in found
