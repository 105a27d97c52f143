"""The hash chain: it holds over everything that is appended, and shows what was changed behind the fences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from position_ledger import ClosePosition, Handle, MarkPosition
from position_ledger.store.append import append
from position_ledger.store.audit import broken_links
from tests.support.commands import closing, events_of, mark_event, mark_events, marking, opening

if TYPE_CHECKING:
    import psycopg

    from position_ledger import Ledger

    Connection = psycopg.Connection[Any]

TAMPERING = {
    "body": "UPDATE events SET state = convert_to(replace(convert_from(state, 'UTF8'), '0.50', '0.51'), 'UTF8')",
    "one byte of the body": "UPDATE events SET state = state || convert_to(' ', 'UTF8')",
    "topic": "UPDATE events SET topic = 'position.closed'",
    "metadata": """UPDATE events SET metadata = '{"actor": "nobody"}'""",
    "hash": "UPDATE events SET stream_hash = sha256(stream_hash)",
}


def tamper(owner: Connection, statement: str, stream: UUID, version: int) -> None:
    """What a person with the rights of the owner can do to one event."""
    owner.execute("ALTER TABLE events DISABLE TRIGGER append_only")
    owner.execute(f"{statement} WHERE originator_id = %s AND originator_version = %s", (stream, version))
    owner.execute("ALTER TABLE events ENABLE TRIGGER append_only")


def test_everything_that_commands_append_is_chained(ledger: Ledger, owner: Connection) -> None:
    life = [opening(handle="x"), marking(Handle("x"), "0.5"), closing(Handle("x"), "0.6")]
    for number in range(3):
        done = ledger.execute(opening(strategy=number + 1, command_id=f"c{number}", actor="desk", correlation_id="x"))
        ledger.execute(MarkPosition(position_id=done.position_id or "", price="0.5", actor="feed"))
        ledger.execute(ClosePosition(position_id=done.position_id or "", price="0.6", reason="manual"))
    assert owner.execute("SELECT count(*) FROM events").fetchone() == (3 * events_of(*life),)
    assert list(broken_links(owner)) == []


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING.keys())
@pytest.mark.parametrize("version", [1, 3, 5])
def test_a_changed_event_is_found_where_it_was_changed(
    app: Connection, owner: Connection, statement: str, version: int
) -> None:
    # given three streams, whose chains hold
    streams = sorted(uuid4() for _ in range(3))
    for stream in streams:
        append(app, mark_events(stream, 5))
    assert list(broken_links(app)) == []
    # when one event is changed behind the fences
    tamper(owner, statement, streams[1], version)
    # then it is named, and the next one too if its predecessor's hash is no longer what it was made of
    found = [(link.stream, link.version) for link in broken_links(app)]
    after = [(streams[1], version + 1)] if "sha256" in statement and version < 5 else []
    assert found == [(streams[1], version), *after]


def test_a_removed_event_is_found(app: Connection, owner: Connection, stream: UUID) -> None:
    append(app, mark_events(stream, 4))
    tamper(owner, "DELETE FROM events", stream, 2)
    links = list(broken_links(app))
    assert [(link.version, link.problem) for link in links] == [(3, "version 3 follows version 1")]


def test_an_event_of_another_stream_is_no_substitute(app: Connection, owner: Connection) -> None:
    one, other = sorted([uuid4(), uuid4()])
    append(app, [mark_event(one, 1)])
    append(app, [mark_event(other, 1)])
    tamper(
        owner,
        "UPDATE events SET stream_hash = (SELECT stream_hash FROM events ORDER BY originator_id LIMIT 1)",
        other,
        1,
    )
    assert [link.stream for link in broken_links(app)] == [other]
