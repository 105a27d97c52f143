"""What two busy processes do here of what one does, and how even that is: how much the other figures of a run can mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from bench.arena import Arena, Servers
from bench.crew import Subjects, crew
from bench.plan import Plan
from bench.report import Line

PROCESSES = 2
"""As many as load and verify in every measurement."""

BODY = msgspec.json.encode({"figures": {f"amount_{number}": f"{number}.25" for number in range(26)}})
DECODED = 200
"""Bodies of one call: a millisecond or so."""


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """One and two processes that decode JSON and touch nothing else, in the same rounds."""
    alone: list[float] = []
    together: list[float] = []
    with servers.arena() as arena, crew(_decoding, arena, PROCESSES) as busy:
        for count in (1, PROCESSES):  # warms up
            busy.run("decode", plan.warm_up_s, count=count)
        for _ in range(plan.rounds):
            alone.append(busy.run("decode", plan.window_s, count=1).per_s)
            together.append(busy.run("decode", plan.window_s, count=PROCESSES).per_s)
    lines = [
        Line(
            f"this machine: work of {PROCESSES} busy processes, of one",
            [two / one for one, two in zip(alone, together, strict=True)],
            f"{PROCESSES}.0 if each had a core of its own",
        ),
        Line(
            "this machine: each window of one busy process, of the best",
            [one / max(alone) for one in alone],
            "idle: 1.0",
        ),
    ]
    return lines, {"alone_per_s": alone, "together_per_s": together}


@contextmanager
def _decoding(_arena: Arena, _number: int) -> Iterator[Subjects]:
    decode = msgspec.json.Decoder().decode

    def some() -> int:
        for _ in range(DECODED):
            decode(BODY)
        return DECODED

    yield {"decode": some}
