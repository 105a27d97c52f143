"""The library's own way to project, on the same log: `ProjectionRunner`, one event, one transaction, row by row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, ClassVar, cast

from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection as StockProjection
from eventsourcing.projection import ProjectionRunner
from psycopg.sql import SQL, Composed, Identifier, Placeholder
from psycopg.types.json import Jsonb

from bench.arena import Arena
from bench.crew import Subjects
from position_ledger.events import EVENTS
from position_ledger.projection import statements
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.projection.scd2 import Version, fold_batch
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded
from position_ledger.store.library import LedgerApplication, library_environment

TABLE = "stock_positions"
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
SLICE_S = 0.1


class Application(LedgerApplication):
    """The ledger's log as the library sees it."""

    codec: ClassVar[Codec] = Codec(EVENTS)


class View(PostgresTrackingRecorder):
    """Expires and inserts one row for each event, with the tracking record, in one transaction."""

    projection: ClassVar[Projection[Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        table = Identifier(self.datastore.schema, TABLE)
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING ALL)").format(
                table, Identifier(self.datastore.schema, self.projection.table)
            )
        )
        self._insert: Composed = SQL("INSERT INTO {} ({}) VALUES ({})").format(
            table,
            statements.names(self.projection.columns),
            SQL(", ").join(Placeholder() for _ in self.projection.columns),
        )
        self._expire: Composed = SQL(
            "UPDATE {} SET row_current_ind = false, row_expiration_date = %s WHERE id = %s AND row_current_ind"
        ).format(table)

    def write(self, expired: tuple[Any, int] | None, version: Version, tracking: Tracking) -> None:
        """One event."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            if expired is not None:
                cursor.execute(self._expire, expired, prepare=True)
            cursor.execute(self._insert, [_plain(value) for value in statements.values_of(version)], prepare=True)


def _plain(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, (dict, list, tuple)) else value


class RowByRow(StockProjection[View]):
    """The same folds as the ledger's own projector, with current rows kept in memory, which only helps it."""

    name = "stock"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._current: dict[str, Version] = {}
        self._openings: dict[Any, int] = {}
        self.gate = Event()
        """Closed: the runner stands still before its next event."""
        self.done = 0

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Fold and write one event."""
        self.gate.wait()
        stream, version = domain_event.originator_id, domain_event.originator_version
        opened = self._openings.setdefault(stream, tracking.notification_id)
        event = Recorded(
            tracking.notification_id,
            stream,
            version,
            domain_event.body.TOPIC,
            domain_event.body,
            _later(tracking),
            _later(tracking),
            opened,
        )
        changes = fold_batch(self.view.projection, [event], self._current)
        expired = (changes.expired_at[0], changes.expired_ids[0]) if changes.expired_ids else None
        self.view.write(expired, changes.inserted[0], tracking)
        self.done += 1


def _later(tracking: Tracking) -> datetime:
    """A recorded time that rises with the number: the library's reader does not hand on the stored one."""
    return FIRST_DAY + timedelta(microseconds=tracking.notification_id)


@contextmanager
def stock_runner(
    arena: Arena,
    number: int,  # noqa: ARG001 - one process
    package: str = "position_ledger.reference.projections",
    table: str = "positions",
) -> Iterator[Subjects]:
    """The runner of one table, standing still except while its subject «stock» is measured."""
    defined = next(one for one in load_projections(package) if one.table == table)
    environment = library_environment(arena.database_url, arena.settings, as_app=False)
    runner = ProjectionRunner(
        application_class=Application,
        projection_class=type("RowByRow", (RowByRow,), {"topics": defined.topics}),
        view_class=type("View", (View,), {"projection": defined}),
        env=environment,
    )
    projection = cast("RowByRow", runner.projection)

    def project() -> int:
        before = projection.done
        projection.gate.set()
        time.sleep(SLICE_S)
        projection.gate.clear()
        return projection.done - before

    try:
        yield {"stock": project}
    finally:
        runner.stop()
        projection.gate.set()
        runner.__exit__(None, None, None)
