"""Append through the command API, one event for each commit, against a bare INSERT of the same row."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.arena import Servers
from bench.crew import Window, crew
from bench.plan import Plan
from bench.report import Line, shown
from bench.writers import make_bare_table, writer

WRITERS = 8
OF_BARE_MIN = 0.5
SCALING_MIN = 0.85


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Ratios with 1 and with 8 writer processes, and how both scale."""
    rounds: list[dict[str, Window]] = []
    with servers.arena() as arena:
        make_bare_table(arena)
        with crew(writer, arena, WRITERS) as writers:
            cases = [(subject, number) for number in (1, WRITERS) for subject in ("bare", "ledger")]
            for subject, number in cases:
                writers.run(subject, plan.warm_up_s, count=number)
            for round_number in range(plan.rounds):
                order = cases[round_number % len(cases) :] + cases[: round_number % len(cases)]
                found = {
                    f"{subject} {number}": writers.run(subject, plan.window_s, count=number)
                    for subject, number in order
                }
                rounds.append(found)
    return _lines(rounds), _details(rounds)


def _lines(rounds: list[dict[str, Window]]) -> list[Line]:
    def ratios(above: str, below: str) -> list[float]:
        return [one[above].per_s / one[below].per_s for one in rounds]

    def floor(name: str) -> str:
        return f"bare INSERT: {shown(_middle(rounds, name))}/s"

    own, bare = ratios(f"ledger {WRITERS}", "ledger 1"), ratios(f"bare {WRITERS}", "bare 1")
    scaling = [ours / theirs for ours, theirs in zip(own, bare, strict=True)]
    return [
        Line("append, 1 writer, of bare INSERT", ratios("ledger 1", "bare 1"), floor("bare 1"), target=OF_BARE_MIN),
        Line(
            f"append, {WRITERS} writers, of bare INSERT",
            ratios(f"ledger {WRITERS}", f"bare {WRITERS}"),
            floor(f"bare {WRITERS}"),
            target=OF_BARE_MIN,
        ),
        Line(
            f"scaling 1 to {WRITERS}, of the bare INSERT's",
            scaling,
            f"bare INSERT: {shown(median(bare))} x, ledger: {shown(median(own))} x",
            target=SCALING_MIN,
        ),
    ]


def _details(rounds: list[dict[str, Window]]) -> dict[str, Any]:
    return {
        name: {
            "per_s": [round(one[name].per_s, 1) for one in rounds],
            "client_cpu_us": [round(one[name].cpu_us, 1) for one in rounds],
        }
        for name in sorted(rounds[0])
    }


def _middle(rounds: list[dict[str, Window]], name: str) -> float:
    return median(one[name].per_s for one in rounds)
