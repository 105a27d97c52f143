"""The ledger as an application of the eventsourcing library: same tables, our append, our mapper, our horizon.

The hot path (`position_ledger.execution`) goes below these classes; they keep the library's interfaces true, so that
its Application, Repository, notification log, subscriptions and ProjectionRunner work on the ledger's tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event as ThreadEvent
from typing import Any, ClassVar
from uuid import UUID

import psycopg
from psycopg.rows import dict_row, tuple_row
from psycopg_pool import ConnectionPool

from position_ledger.database import connect, prepare
from position_ledger.domain.book import Book
from position_ledger.domain.decisions import Append, fold_append
from position_ledger.domain.event import Event
from position_ledger.domain.families import EVENTS
from position_ledger.domain.position import Position
from position_ledger.errors import SchemaMismatch
from position_ledger.sessions import require_alive
from position_ledger.settings import Settings, load_settings
from position_ledger.store import feed
from position_ledger.store.append import Key, KeyTaken, VersionConflict, append
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import NO_HASH, NewEvent, chain, new_event_id
from position_ledger.store.upstream import (
    Application,
    ApplicationRecorder,
    BasePostgresFactory,
    Environment,
    EnvType,
    IntegrityError,
    Mapper,
    Notification,
    PostgresApplicationRecorder,
    PostgresDatastore,
    PostgresFactory,
    StoredEvent,
    Subscription,
    Transcoder,
)

SUBSCRIPTION_POLL_S = 0.05
"""A subscription looks for new events at least this often: it does not depend on being notified."""

NOT_TOLD = datetime.min.replace(tzinfo=UTC)
"""The effective time of an event that came through a reader of the library that does not read it."""


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """A ledger event as the library's event protocol wants it."""

    originator_id: UUID
    originator_version: int
    body: Event
    effective_at: datetime

    def mutate(self, aggregate: LedgerAggregate | None) -> LedgerAggregate:
        """The aggregate after this event."""
        append = Append(self.originator_id, self.originator_version, self.body, self.effective_at)
        state = fold_append(aggregate.state if aggregate else None, append)
        return LedgerAggregate(self.originator_id, self.originator_version, state)


@dataclass(frozen=True, slots=True)
class LedgerAggregate:
    """A position or book as the library's immutable aggregates are: identity, version, state, pending events."""

    id: UUID
    version: int
    state: Position | Book
    pending: tuple[LedgerEvent, ...] = ()

    @classmethod
    def begin(cls, stream: UUID, body: Event, effective_at: datetime) -> LedgerAggregate:
        """A new aggregate with the first event of its stream, which `collect_events` will hand to the application."""
        event = LedgerEvent(stream, 1, body, effective_at)
        return replace(event.mutate(None), pending=(event,))

    def trigger(self, body: Event, effective_at: datetime) -> LedgerAggregate:
        """The aggregate after one more event, which `collect_events` will hand to the application."""
        event = LedgerEvent(self.id, self.version + 1, body, effective_at)
        return replace(event.mutate(self), pending=(*self.pending, event))

    def collect_events(self) -> Sequence[LedgerEvent]:
        """The events that are not stored yet."""
        return self.pending


@dataclass(frozen=True)
class LedgerStoredEvent(StoredEvent):
    """A stored event with what the ledger keeps beside the library's columns."""

    effective_at: datetime | None = None


class LedgerMapper(Mapper[UUID]):
    """Maps by stable topic and plain JSON, with upcasting; the ledger's `Codec` does the work."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """A `LedgerEvent` as it is stored."""
        return LedgerStoredEvent(
            originator_id=domain_event.originator_id,
            originator_version=domain_event.originator_version,
            topic=domain_event.body.TOPIC,
            state=self.codec.encode(domain_event.body),
            effective_at=domain_event.effective_at,
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """A stored event as `LedgerEvent`; works for any reader of the table, also the library's own."""
        return LedgerEvent(
            UUID(str(stored_event.originator_id)),
            stored_event.originator_version,
            self.codec.decode(stored_event.topic, stored_event.state),
            getattr(stored_event, "effective_at", NOT_TOLD),
        )


class LedgerRecorder(PostgresApplicationRecorder):
    """Appends through the ledger's functions and reads behind its horizon. Never locks the table, never notifies."""

    def create_table(self) -> None:
        """Refuse: the migrations own the schema."""
        msg = "the schema belongs to the migrations: run position-ledger migrate up"
        raise SchemaMismatch(msg)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """Append; ``keys`` (a sequence of `Key`) goes into the same transaction.

        Raises:
            IntegrityError: a version or a key is taken; nothing was stored.
        """
        if not stored_events:
            return []
        keys: Sequence[Key] = kwargs.get("keys", ())
        with self.datastore.get_connection() as connection:
            plain: psycopg.Connection[Any] = connection
            row_factory, plain.row_factory = plain.row_factory, tuple_row
            try:
                receipts = append(plain, self._chained(plain, stored_events), keys)
            except (VersionConflict, KeyTaken) as error:
                raise IntegrityError(str(error)) from error
            finally:
                plain.row_factory = row_factory
        return [receipt.seq for receipt in receipts]

    def _chained(self, connection: psycopg.Connection[Any], stored_events: Iterable[StoredEvent]) -> list[NewEvent]:
        """The events with their hashes; reads the hash of the last stored event of each stream."""
        hashes: dict[UUID, bytes] = {}
        chained = []
        for event in stored_events:
            stream = UUID(str(event.originator_id))
            if stream not in hashes:
                hashes[stream] = last_hash(connection, stream, event.originator_version - 1)
            digest = chain(hashes[stream], stream, event.originator_version, event.topic, event.state, {})
            hashes[stream] = digest
            chained.append(
                NewEvent(
                    stream=stream,
                    version=event.originator_version,
                    topic=event.topic,
                    state=event.state,
                    event_id=new_event_id(),
                    effective_at=getattr(event, "effective_at", None),
                    stream_hash=digest,
                    metadata={},
                )
            )
        return chained

    def select_events(self, originator_id: UUID | str, **kwargs: Any) -> Sequence[StoredEvent]:
        """As the library's, with the effective time of each event."""
        events: Sequence[StoredEvent] = super().select_events(originator_id, **kwargs)
        if not events:
            return events
        with self.datastore.get_connection() as connection:
            rows = connection.execute(
                "SELECT originator_version, effective_at FROM events WHERE originator_id = %s", (originator_id,)
            ).fetchall()
        times = {row["originator_version"]: row["effective_at"] for row in rows}
        return [LedgerStoredEvent(**vars(event), effective_at=times[event.originator_version]) for event in events]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """As the library's, but never beyond the horizon: what it skips today it would skip for ever."""
        upto = self.max_notification_id()
        if upto is None:
            return []
        seen: Sequence[Notification] = super().select_notifications(
            start, limit, upto if stop is None else min(stop, upto), topics, inclusive_of_start=inclusive_of_start
        )
        return seen

    def max_notification_id(self) -> int | None:
        """The horizon: every event up to it is visible or will never exist. None: nothing yet."""
        with self.datastore.get_connection() as connection:
            plain: psycopg.Connection[Any] = connection
            row_factory, plain.row_factory = plain.row_factory, tuple_row
            try:
                return feed.horizon(plain) or None
            finally:
                plain.row_factory = row_factory

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Events beyond ``gt``, for ever; polls, so a lost notification cannot stall it."""
        return LedgerSubscription(self, gt=gt, topics=topics)


class LedgerSubscription(Subscription[ApplicationRecorder]):
    """Follows the feed with a timed wait. The library's own waits for a NOTIFY and stalls behind the horizon."""

    PAGE_EVENTS = 500

    def __init__(self, recorder: LedgerRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._page: list[Notification] = []
        self._stopped = ThreadEvent()

    def stop(self) -> None:
        """End the iteration, from any thread."""
        super().stop()
        self._stopped.set()

    def __next__(self) -> Notification:
        """The next event; blocks until there is one or `stop` is called."""
        while not self._page:
            if self._stopped.is_set():
                raise StopIteration
            self._page = list(
                self._recorder.select_notifications(
                    self._last_notification_id or 0, self.PAGE_EVENTS, topics=self._topics, inclusive_of_start=False
                )
            )[::-1]
            if not self._page:
                self._stopped.wait(SUBSCRIPTION_POLL_S)
        if self._stopped.is_set():
            raise StopIteration
        notification = self._page.pop()
        self._last_notification_id = notification.id
        return notification


class LedgerFactory(PostgresFactory):
    """Builds the library's infrastructure on the ledger's pool, schema and migrations.

    Environment: ``LEDGER_DATABASE_URL``, ``LEDGER_SCHEMA`` and ``LEDGER_APP_ROLE`` (see `library_environment`).
    """

    application_recorder_class = LedgerRecorder

    def __init__(self, env: Environment | EnvType | None) -> None:
        super(BasePostgresFactory, self).__init__(env)
        url = self.env.get("LEDGER_DATABASE_URL") or ""
        settings = Settings(ledger_schema=self.env.get("LEDGER_SCHEMA") or "ledger")
        as_app = (self.env.get("LEDGER_APP_ROLE") or "yes") == "yes"
        self.datastore = PostgresDatastore("", "", "", "", "", schema=settings.ledger_schema)

        def configure(connection: psycopg.Connection[Any]) -> None:
            row_factory, connection.row_factory = connection.row_factory, tuple_row
            prepare(connection, settings, as_app=as_app)
            connection.row_factory = row_factory

        connect(url, settings, as_app=as_app, name="position-ledger library").close()  # what is wrong is told at once
        self.datastore.pool = ConnectionPool(  # type: ignore[assignment]
            url,
            kwargs={"autocommit": True, "row_factory": dict_row, "application_name": "position-ledger library"},
            configure=configure,
            check=require_alive,
            min_size=1,
            max_size=settings.pool_size_max,
            timeout=settings.connect_timeout_s,
            open=False,
        )

    def application_recorder(self) -> ApplicationRecorder:
        """The recorder of the log, whatever the application is called."""
        return LedgerRecorder(self.datastore, events_table_name="events")


class LedgerApplication(Application[UUID]):
    """The library's application on the ledger's log: ``save``, ``repository``, ``notification_log``, subscriptions.

    ``LedgerApplication(library_environment(database_url))`` is all it takes. A team with events of its own sets
    ``event_types`` in a subclass. It stores what it is given: rules and repeats are those of `position_ledger.Ledger`.
    """

    name = "Ledger"
    event_types: ClassVar[Sequence[type[Event]]] = EVENTS

    def construct_factory(self, env: Environment) -> Any:
        """The ledger's factory."""
        return LedgerFactory(env)

    def construct_transcoder(self) -> Transcoder:
        """None is needed: the codec encodes whole events."""
        return super().construct_transcoder()

    def construct_mapper(self) -> Mapper[UUID]:
        """The ledger's mapper."""
        return LedgerMapper(Codec(self.event_types))


def library_environment(url: str, settings: Settings | None = None, *, as_app: bool = True) -> dict[str, str]:
    """The environment that makes the library's classes run on the ledger: pass it as their ``env``.

    ``as_app`` False keeps the rights of the user in ``url``: for the library's own tables, such as those of a view.
    """
    settings = settings or load_settings()
    return {
        "PERSISTENCE_MODULE": f"{LedgerFactory.__module__}:{LedgerFactory.__name__}",
        "LEDGER_DATABASE_URL": url,
        "LEDGER_SCHEMA": settings.ledger_schema,
        "LEDGER_APP_ROLE": "yes" if as_app else "no",
    }


def last_hash(connection: psycopg.Connection[Any], stream: UUID, version: int) -> bytes:
    """The hash of one stored event; that of the void for version 0 or a stream that is not there."""
    row = connection.execute(
        "SELECT stream_hash FROM events WHERE originator_id = %s AND originator_version = %s", (stream, version)
    ).fetchone()
    return bytes(row[0]) if row else NO_HASH
