"""The main job end to end, on real servers and processes: trade, project, change a table, rebuild, prove."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.table import Table

from position_ledger import operations
from position_ledger.demo import team
from position_ledger.domain.errors import LedgerError
from position_ledger.embedded import EmbeddedServers
from position_ledger.ledger import Ledger
from position_ledger.operations import RebuildOptions, RebuildReport, VerifyReport
from position_ledger.settings import Settings, load_settings
from position_ledger.setup import Reached
from position_ledger.store import feed

COMMANDS_MIN = 20_000
TRADERS = (("ann,bob,cleo", 1), ("dora,emil,fred", 2))
WORKERS = 2
DATABASE = "position_ledger_demo"
PART_TIMEOUT_S = 60.0
POSITIONS_SHOWN = 5
_WORKER = ["-m", "position_ledger", "worker", "--processes", str(WORKERS)]
VERSIONS_SHOWN = 6


class DemoFailed(LedgerError):
    """A part of the demo did not do what it is there to show."""


@dataclass(slots=True)
class Process:
    """A process of the demo, with its log."""

    name: str
    process: subprocess.Popen[str]
    log: IO[str]

    def wait_until_it_speaks(self) -> None:
        """Wait for its first line, or for its end."""
        if self.process.stdout is not None:
            self.process.stdout.readline()

    def finish(self, timeout_s: float = PART_TIMEOUT_S) -> dict[str, Any]:
        """Close its input and read its report.

        Raises:
            DemoFailed: it ended badly; has the last line that it wrote.
        """
        out, _ = self.process.communicate(timeout=timeout_s)
        if self.process.returncode != 0:
            self.log.seek(0)
            last = (self.log.read().strip().splitlines() or ["it said nothing"])[-1]
            msg = f"{self.name} ended with code {self.process.returncode}: {last}"
            raise DemoFailed(msg)
        report: dict[str, Any] = json.loads(out)
        return report

    def stop(self) -> None:
        """End it, whatever it is doing."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def run(home: Path | None = None, *, commands: int = COMMANDS_MIN, console: Console | None = None) -> bool:
    """Run the demo in a database of its own on the embedded servers; true if everything was proven.

    Raises:
        DemoFailed, LedgerError: a part failed; says which.
    """
    show = console or Console(highlight=False)
    started = time.perf_counter()
    with ExitStack() as stack:
        servers = stack.enter_context(EmbeddedServers.start(home))
        before, reached = _fresh_database(servers)
        show.print(f"servers up in {time.perf_counter() - started:.1f} s, data under {servers.home}")
        operations.migrate_up(before, reached, None, lambda _message: None)
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="position-ledger-demo-")))
        start = _starter(stack, logs, before)
        old_workers = start("old workers", _WORKER)
        traders = [
            start(
                f"trader {seed}",
                ["-m", "position_ledger.demo.trader", str(seed), accounts, str(commands // len(TRADERS))],
            )
            for accounts, seed in TRADERS
        ]
        _wait_for_trading(before, reached, commands // 4)
        watched = _show_positions(before, reached, commands // 4, show)

        watcher = start("watcher", ["-m", "position_ledger.demo.watcher"])
        watcher.wait_until_it_speaks()
        after = _changed(before, logs / "migrations")
        show.print("\n[bold]A column that only history knows[/bold] (NOT NULL, no default), while trading goes on:")
        new_workers: list[Process] = []
        report = _rebuild(after, reached, show, lambda: new_workers.append(start("new workers", _WORKER, after)))
        reads = watcher.finish()
        done = [trader.finish() for trader in traders]
        lag_s, worst = _wait_for_rows(after, reached, max(one["token"] for one in done), watched)
        show.print(f"  {watched}: worst mark so far {worst:f}, which no row of the old table could tell")
        proof = operations.verify(after, reached, None)
        _report(show, done, report, reads, lag_s, proof, time.perf_counter() - started)
        for process in (old_workers, *new_workers):
            process.stop()
        return proof.holds and report.swapped and not reads["errors"]


def _fresh_database(servers: EmbeddedServers) -> tuple[Settings, Reached]:
    """An empty database for this run, so that no ledger of the user is touched; the last run's is dropped."""
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        name = sql.Identifier(DATABASE)
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
    url = make_conninfo(servers.database_url, dbname=DATABASE)
    settings = load_settings(database_url=url, redis_url=servers.redis_url)
    return settings, Reached(url, servers.redis_url, None)


def _starter(stack: ExitStack, logs: Path, settings: Settings) -> Callable[..., Process]:
    """A function that starts Python processes with settings in their environment and ends them with the demo."""

    def start(name: str, arguments: list[str], other: Settings | None = None) -> Process:
        log = stack.enter_context((logs / f"{name.replace(' ', '-')}.log").open("w+"))
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, *arguments],
            env=_environment(other or settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        started = Process(name, process, log)
        stack.callback(started.stop)
        return started

    return start


def _environment(settings: Settings) -> dict[str, str]:
    own = {
        "POSITION_LEDGER_DATABASE_URL": str(settings.database_url),
        "POSITION_LEDGER_REDIS_URL": str(settings.redis_url),
        "POSITION_LEDGER_PROJECTIONS": settings.projections,
        "POSITION_LEDGER_MIGRATIONS": settings.migrations,
        "POSITION_LEDGER_SCHEMA": settings.ledger_schema,
    }
    return {**os.environ, **own}


def _changed(before: Settings, folder: Path) -> Settings:
    """The settings of the changed code: the team's projections, and its migration beside the others."""
    folder.mkdir()
    for file in operations.migrations_folder(before).iterdir():
        if file.name.endswith(".sql"):
            (folder / file.name).write_bytes(file.read_bytes())
    team.add_migration(folder)
    return before.model_copy(update={"projections": f"{team.__name__}.projections", "migrations": str(folder)})


def _wait_for_trading(settings: Settings, reached: Reached, events: int) -> None:
    deadline = time.monotonic() + PART_TIMEOUT_S
    with psycopg.connect(reached.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(settings.ledger_schema)))
        while feed.mark(connection) < events:
            if time.monotonic() > deadline:
                msg = f"the traders did not make {events} events within {PART_TIMEOUT_S:g} s"
                raise DemoFailed(msg)
            time.sleep(0.05)


def _show_positions(settings: Settings, reached: Reached, token: int, show: Console) -> str:
    """Print open positions and the history of the one with most versions; answers its id."""
    with Ledger(settings, reached) as ledger:
        ledger.wait_for(token, PART_TIMEOUT_S)
        rows = ledger.positions(status="open")
        table = _table("position", "account", "market", "side", "quantity>", "entry>", "current>", "unrealized>")
        for row in rows[:POSITIONS_SHOWN]:
            prices = (f"{row['entry_price']:.4f}", f"{row['current_price']:f}", f"{row['unrealized_pnl']:.2f}")
            who = (row["position_id"], row["account_id"], row["market_id"], row["side"])
            table.add_row(*who, f"{row['quantity']:f}", *prices)
        show.print(f"\n[bold]{len(rows)} open positions[/bold] while two processes trade; the newest:")
        show.print(table)
        longest = str(max(rows, key=lambda row: int(row["version"]))["position_id"])
        history = ledger.history(longest)
    show.print(f"\n[bold]History of {longest}[/bold], the last {VERSIONS_SHOWN} of {len(history)} versions:")
    table = _table("id>", "version>", "from", "to", "quantity>", "mark>", "realized>", "unrealized>")
    for row in history[-VERSIONS_SHOWN:]:
        interval = (_clock(row["row_effective_date"]), _clock(row["row_expiration_date"]))
        money = (f"{row['realized_pnl']:.2f}", f"{row['unrealized_pnl'] or 0:.2f}")
        numbers = (f"{row['quantity']:f}", f"{row['current_price']:f}")
        table.add_row(str(row["id"]), str(row["version"]), *interval, *numbers, *money)
    show.print(table)
    return longest


def _table(*columns: str) -> Table:
    """A plain table; a column whose name ends with > is a number."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", no_wrap=True)
    return table


def _clock(moment: datetime | None) -> str:
    return "now" if moment is None else f"{moment:%H:%M:%S.%f}"[:-3]


def _rebuild(after: Settings, reached: Reached, show: Console, start_new_workers: Callable[[], None]) -> RebuildReport:
    """What `position-ledger migrate up` does with the changed code, and workers with that code as soon as they may run."""

    def tell(message: str) -> None:
        show.print(f"  {message}")
        if message.startswith("loaded"):
            start_new_workers()

    return operations.rebuild(after, reached, "positions", options=RebuildOptions(), tell=tell)


def _wait_for_rows(settings: Settings, reached: Reached, token: int, watched: str) -> tuple[float, Decimal]:
    """How long until everything was visible, and the new column of one position."""
    started = time.perf_counter()
    with Ledger(settings, reached) as ledger:
        ledger.wait_for(token, PART_TIMEOUT_S)
        return time.perf_counter() - started, ledger.position(watched)["worst_mark"]


def _report(
    show: Console,
    traders: list[dict[str, Any]],
    report: RebuildReport,
    reads: dict[str, Any],
    lag_s: float,
    proof: VerifyReport,
    seconds: float,
) -> None:
    commands, events = (sum(one[what] for one in traders) for what in ("commands", "events"))
    rate = sum(one["events"] / one["seconds"] for one in traders)
    show.print(
        f"\n[bold]{commands:,} commands[/bold] made {events:,} events at {rate:,.0f} events/s; "
        f"all rows visible {lag_s:.2f} s after the last one"
    )
    show.print(
        f"rebuild: {report.events:,} events in {report.load_s:.1f} s ({report.events / report.load_s:,.0f}/s), indexes "
        f"{report.index_s:.1f} s, {report.catch_up_rounds} rounds of catch-up, table locked {report.swap_lock_ms:.1f} ms"
    )
    show.print(
        f"readers meanwhile: {reads['reads']:,} reads, {reads['errors']} errors, longest stall {reads['longest_ms']:.0f} ms"
    )
    if proof.holds:
        rows = ", ".join(f"{table.rows:,} rows of {table.table}" for table in proof.tables if table.rows)
        show.print(f"[bold green]proven[/bold green]: {rows} equal the log, column by column")
    for problem in proof.problems:
        show.print(f"[bold red]not proven[/bold red]: {problem}")
    show.print(f"done in {seconds:.0f} s")
