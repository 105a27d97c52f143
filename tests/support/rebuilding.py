"""Rebuilds as an operator runs them, for the tests of the rebuild: in this process or in one that may be killed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from position_ledger import Ledger, operations
from position_ledger.demo.team import add_migration
from position_ledger.migration import load_folder
from position_ledger.operations import RebuildOptions, RebuildReport
from position_ledger.projection import rebuilds
from tests.support import engine
from tests.support.engine import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from position_ledger.operations import Steered
    from position_ledger.operations.steering import Wanted
    from position_ledger.projection.rebuilds import RebuildStatus
    from position_ledger.settings import Settings

PAUSE_S = 0.003
"""Between two reads of a reader, so that what it looks at gets on."""

WRITE_EVERY_S = 0.02
"""Between two steps of a writer, so that tests measure the ledger and not who gets the processor."""

TEAM = "position_ledger.demo.team.projections"

RUN = """
import sys
from position_ledger import operations
from position_ledger.operations import RebuildOptions
from position_ledger.settings import load_settings
from tests.support import engine
settings = load_settings(
    database_url=sys.argv[1], redis_url="redis://127.0.0.1:1/0", projections=sys.argv[2], migrations=sys.argv[3]
)
def tell(message):
    print(message, flush=True)
tell("started")
operations.rebuild(
    settings, engine.reached(settings), "positions", options=RebuildOptions(processes=int(sys.argv[4])), tell=tell
)
"""


def rebuild(settings: Settings, **options: Any) -> RebuildReport:
    """Rebuild positions in this process."""
    where = (settings, engine.reached(settings), "positions")
    return operations.rebuild(*where, options=RebuildOptions(**options), tell=engine.quiet)


def roll_back(settings: Settings) -> RebuildReport:
    """Put the retired generation back."""
    return operations.roll_back(settings, engine.reached(settings), "positions", tell=engine.quiet)


def arguments(settings: Settings, processes: int = 1) -> list[str]:
    """What a process takes that runs `RUN`."""
    return ["-c", RUN, str(settings.database_url), settings.projections, settings.migrations, str(processes)]


def shipped_migrations(settings: Settings, folder: Path) -> Path:
    """A copy of the migrations of the settings in a new folder, to which a test adds its own."""
    target = folder / "migrations"
    target.mkdir()
    for source in operations.migrations_folder(settings).iterdir():
        if source.name.endswith(".sql"):
            (target / source.name).write_bytes(source.read_bytes())
    return target


def last_number(settings: Settings) -> int:
    """The number of the last migration of the settings."""
    return load_folder(operations.migrations_folder(settings))[-1].number


def team_settings(settings: Settings, folder: Path) -> Settings:
    """The settings of the next release: a field more in the row type, and its migration beside the others."""
    target = shipped_migrations(settings, folder)
    add_migration(target)
    return settings.model_copy(update={"projections": TEAM, "migrations": str(target)})


@dataclass
class Reads:
    """What a reader in a loop has seen."""

    reads: int = 0
    longest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Busy:
    """Threads that go on while something is done to the ledger."""

    accepted: list[int] = field(default_factory=list)


@contextmanager
def busy(settings: Settings, *, writers: int = 2, workers: int = 1, of: Settings | None = None) -> Iterator[Busy]:
    """Writers, and workers with the code of the settings (or of others), until the end of the block."""
    stop, result = threading.Event(), Busy()

    def write(seed: int) -> int:
        with Ledger(settings, engine.reached(settings)) as ledger:
            traffic = Traffic(ledger, 100 + seed)
            while not stop.is_set():
                traffic.once()
                stop.wait(WRITE_EVERY_S)
            return traffic.accepted

    def work(number: int) -> None:
        with engine.following(of or settings, f"busy worker {number}") as follower:
            follower.follow(stop)

    with ThreadPoolExecutor(writers + workers) as pool:
        writing = [pool.submit(write, seed) for seed in range(writers)]
        working = [pool.submit(work, number) for number in range(workers)]
        try:
            yield result
        finally:
            stop.set()
        result.accepted = [one.result(30) for one in writing]
        for one in working:
            one.result(30)


@contextmanager
def in_loop(count: int, action: Callable[[threading.Event, int], None]) -> Iterator[None]:
    """Run an action in so many threads until the end of the block; its failures are raised there."""
    stop = threading.Event()
    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(action, stop, number) for number in range(count)]
        try:
            yield
        finally:
            stop.set()
        for one in running:
            one.result(30)


def left_over(settings: Settings) -> list[str]:
    """What a rebuild that was stopped would leave behind: generations, schemas, tables, locks, unvalidated keys."""
    with engine.connected(settings, as_app=False) as owner:
        rows = owner.execute(
            "SELECT 'building ' || generation_id FROM projection_generations WHERE state = 'building'"
            " UNION ALL SELECT 'schema ' || n.nspname FROM pg_namespace AS n WHERE n.nspname LIKE 'ledger\\_g%'"
            "  AND NOT EXISTS (SELECT FROM projection_generations AS g WHERE g.state IN ('retired', 'active')"
            "                  AND n.nspname = 'ledger_g' || g.generation_id)"
            " UNION ALL SELECT 'table ' || n.nspname || '.' || c.relname FROM pg_class AS c"
            "  JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname LIKE 'ledger\\_g%' AND c.relkind = 'r'"
            "  AND NOT EXISTS (SELECT FROM projection_generations AS g WHERE g.state = 'retired' AND g.schema_name = n.nspname)"
            " UNION ALL SELECT 'unvalidated ' || conname FROM pg_constraint WHERE NOT convalidated"
            " UNION ALL SELECT 'checkpoints of ' || c.generation_id FROM projection_checkpoints AS c"
            "  JOIN projection_generations AS g USING (generation_id) WHERE g.state NOT IN ('active', 'retired')"
            " UNION ALL SELECT 'option ' || array_to_string(c.reloptions, ',') FROM pg_class AS c"
            "  JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'ledger' AND c.relname = 'positions'"
            "  AND 'autovacuum_enabled=off' = ANY (c.reloptions)"
        ).fetchall()
    return sorted({row[0] for row in rows})


def execute(settings: Settings, *statements: str) -> None:
    """Run statements as the owner."""
    with engine.connected(settings, as_app=False) as owner:
        for statement in statements:
            owner.execute(statement.encode())


def reader(settings: Settings, reads: Reads) -> Callable[[threading.Event, int], None]:
    """Read the table and its view in a loop with prepared statements: never an error, never none or two current rows."""
    columns = ", ".join(engine.positions_of(settings).columns)
    statements = (
        f"SELECT {columns} FROM ledger.positions WHERE position_id = %s AND row_current_ind",
        "SELECT id, position_id, version, quantity FROM ledger.current_positions WHERE position_id = %s",
    )

    def read(stop: threading.Event, number: int) -> None:
        with psycopg.connect(str(settings.database_url), autocommit=True) as connection:
            row = connection.execute("SELECT position_id FROM ledger.positions WHERE version = 1 LIMIT 1").fetchone()
            assert row is not None
            last = 0
            while not stop.is_set():
                started = time.perf_counter()
                found = connection.execute(statements[number % 2].encode(), row, prepare=True).fetchall()
                reads.longest_s = max(reads.longest_s, time.perf_counter() - started)
                reads.reads += 1
                if len(found) != 1:
                    reads.wrong.append(f"{len(found)} current rows")
                elif found[0][0] < last:
                    reads.wrong.append(f"row {found[0][0]} after row {last}")
                else:
                    last = found[0][0]
                stop.wait(PAUSE_S)

    return read


class Running:
    """A rebuild that runs in a thread of its own while a test looks on."""

    def __init__(self, settings: Settings, future: Future[RebuildReport], told: list[str]) -> None:
        self.settings = settings
        self.told = told
        self.future = future

    def report(self) -> RebuildReport:
        """Its report, when it has ended; raises what it raised."""
        return self.future.result(60)

    def until(self, condition: Callable[[RebuildStatus], bool]) -> RebuildStatus:
        """Wait until its row is so; answers the row."""
        deadline = time.monotonic() + 30
        while True:
            found = row_of(self.settings)
            if found is not None and condition(found):
                return found
            assert not self.future.done(), (found, self.told, self.future.exception() or self.future.result())
            assert time.monotonic() < deadline, (found, self.told)
            time.sleep(0.02)

    def until_told(self, words: str) -> None:
        """Wait until it has said that."""
        self.until(lambda _row: any(words in message for message in self.told))


@contextmanager
def running_rebuild(settings: Settings, table: str = "positions", **options: Any) -> Iterator[Running]:
    """Rebuild a table in a thread; one that is still at it at the end of the block is cancelled."""
    told: list[str] = []
    where = (settings, engine.reached(settings))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(operations.rebuild, *where, table, options=RebuildOptions(**options), tell=told.append)
        try:
            yield Running(settings, future, told)
        finally:
            if not future.done():
                operations.steer_rebuild(*where, table, "cancel")


def row_of(settings: Settings, table: str = "positions") -> RebuildStatus | None:
    """The last rebuild of a table as `status` shows it."""
    with engine.connected(settings, as_app=False) as owner:
        return next((one for one in rebuilds.latest(owner) if one.table == table), None)


def steer(settings: Settings, wanted: Wanted, table: str = "positions") -> Steered:
    """What --pause, --resume and --cancel do."""
    return operations.steer_rebuild(settings, engine.reached(settings), table, wanted)


def shadows(settings: Settings) -> list[tuple[Any, ...]]:
    """What is being built of positions: generation and schema."""
    with engine.connected(settings, as_app=False) as owner:
        return owner.execute(
            "SELECT generation_id, schema_name FROM projection_generations WHERE state = 'building'"
        ).fetchall()
