"""Run every measurement, print one table, keep one file: ``python -m bench [--quick] [--only NAME]``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from bench import (
    append,
    archiving,
    checking,
    known_at,
    lag,
    living,
    loading,
    machine,
    migrating,
    planning,
    projecting,
    rebuilding,
    rolling_back,
    settling,
    six_tables,
    verifying,
)
from bench.arena import Servers, servers
from bench.plan import FULL, QUICK
from bench.report import Report

RESULTS = Path("bench-results")
MACHINE = "machine"
"""Measured in every run: no figure of several processes means anything without it."""

MEASUREMENTS = {
    MACHINE: machine.measure,
    "append": append.measure,
    "projecting": projecting.measure,
    "six-tables": six_tables.measure,
    "lag": lag.measure,
    "known-at": known_at.measure,
    "load": loading.measure,
    "rebuild": rebuilding.measure,
    "archive": archiving.measure,
    "rebuild-beside-trading": living.measure,
    "rollback": rolling_back.measure,
    "verify": verifying.measure,
    "settling": settling.measure,
    "migrate-up": migrating.measure,
    "migrate-plan": planning.measure,
    "check": checking.measure,
}


def main() -> int:
    """0 if everything could be measured, whatever the figures; 2 if something could not."""
    arguments = _arguments()
    report = Report(arguments.quick)
    console = Console()
    with servers() as started:
        for name in MEASUREMENTS:
            if arguments.only in (None, name) or name == MACHINE:
                _measure(name, started, report)
    report.show(console)
    console.print(f"written to {report.write(RESULTS)}", highlight=False)
    return 2 if report.failures else 0


def _measure(name: str, started: Servers, report: Report) -> None:
    begun = time.perf_counter()
    print(f"measuring {name} …", file=sys.stderr)
    try:
        lines, details = MEASUREMENTS[name](started, QUICK if report.quick else FULL)
    except Exception as error:  # noqa: BLE001 - one that fails does not take the others with it
        report.failures[name] = f"{type(error).__name__}: {error}"
        return
    report.add(name, lines, {**details, "took_s": round(time.perf_counter() - begun, 1)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute, fewer and shorter rounds")
    parser.add_argument("--only", choices=sorted(MEASUREMENTS), help="one measurement")
    return parser.parse_args()
