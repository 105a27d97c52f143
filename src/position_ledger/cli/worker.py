"""Running workers."""

from __future__ import annotations

import logging
import os
from contextlib import closing

import click

from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import command
from position_ledger.cli.running import note
from position_ledger.database import connect
from position_ledger.projection.definition import load_projections
from position_ledger.projection.generations import check_start
from position_ledger.store import feed
from position_ledger.supervision import WorkerOptions, check_workers, child_command, child_environment, supervise

PROCESSES_MAX = 64
THREADS_MAX = 32
LOG_FORMAT = "%(asctime)s position-ledger worker: %(message)s"


@command(
    """Project new events into the tables as they arrive, until SIGTERM or Ctrl-C.

    Any number of these may run, on any number of machines; they share the work. One that is killed is missed for a few
    seconds, and nothing is lost or written twice.

    \b
    Examples:
      position-ledger worker
      position-ledger worker --processes 4
    """
)
@click.option(
    "--processes", type=click.IntRange(1, PROCESSES_MAX), default=2, show_default=True, metavar="N", help="Processes."
)
@click.option(
    "--threads", type=click.IntRange(1, THREADS_MAX), default=1, show_default=True, metavar="M", help="Threads in each."
)
@click.option("--verbose", is_flag=True, help="Say what dramatiq does, too.")
def worker(*, processes: int, threads: int, verbose: bool) -> None:
    """Refuse what could only idle, then run workers until told to stop."""
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    with open_servers() as (settings, reached):
        broker = check_workers(settings.workers)
        with closing(connect(reached.database_url, settings, as_app=True)) as connection:
            feed.check_connection(connection)
            check_start(connection, load_projections(settings.projections))
        note(f"{processes} worker processes follow the log (process {os.getpid()}); Ctrl-C stops them")
        options = WorkerOptions(processes, threads, is_verbose=verbose)
        supervise(child_command(broker, options), child_environment(reached))
