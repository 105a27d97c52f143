"""What was measured: lines with their target, the table that shows them, the file that keeps them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Direction = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a figure for each round, its target, and the floor of the same rounds in words."""

    name: str
    rounds: Sequence[float]
    """One figure for each round; the median is what is compared with the target."""
    floor: str = ""
    """What it is compared with, and what that did in the same run."""
    direction: Direction = "at least"
    target: float | None = None
    """None: shown for the record, not judged."""
    unit: str = ""
    """Empty: a ratio."""

    @property
    def middle(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def passes(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.target is None:
            return None
        return self.middle >= self.target if self.direction == "at least" else self.middle <= self.target


@dataclass(slots=True)
class Report:
    """Everything of one run."""

    quick: bool
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    lines: list[Line] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """Absolute figures by measurement; they compare with nothing outside this run."""
    failures: dict[str, str] = field(default_factory=dict)
    """Measurements that could not be made, and why."""

    def add(self, name: str, lines: Sequence[Line], details: Mapping[str, Any]) -> None:
        """Take in what one measurement found."""
        self.lines.extend(lines)
        self.details[name] = dict(details)

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(title="Speed, as ratios within this run", title_justify="left", caption_justify="left")
        for heading, side in (("what", "left"), ("target", "right"), ("measured", "right"), ("min to max", "right")):
            table.add_column(heading, justify=side, no_wrap=heading != "what")  # type: ignore[arg-type]
        table.add_column("", no_wrap=True)
        table.add_column("beside it, in the same rounds")
        for line in self.lines:
            table.add_row(*_cells(line))
        console.print(table)
        for name, why in self.failures.items():
            console.print(f"{name}: could not be measured: {why}", markup=False)

    def write(self, folder: Path) -> Path:
        """Keep the run as one JSON file named after its start."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.started_at:%Y%m%dT%H%M%SZ}.json"
        content = {
            "started_at": self.started_at.isoformat(),
            "quick": self.quick,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "lines": [{**asdict(line), "median": line.middle, "passes": line.passes} for line in self.lines],
            "details": self.details,
            "failures": self.failures,
        }
        path.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
        return path


def _cells(line: Line) -> tuple[str, ...]:
    sign = "≥" if line.direction == "at least" else "≤"
    verdict = {True: "[green]pass[/]", False: "[red]miss[/]", None: ""}[line.passes]
    target = "" if line.target is None else f"{sign} {shown(line.target, line.unit)}"
    spread = "" if len(line.rounds) == 1 else f"{shown(min(line.rounds))} to {shown(max(line.rounds))}"
    return line.name, target, shown(line.middle, line.unit), spread, verdict, line.floor


def shown(figure: float, unit: str = "") -> str:
    """Three significant digits, thousands separated, with the unit."""
    digits = 0 if abs(figure) >= 100 else 1 if abs(figure) >= 10 else 2  # noqa: PLR2004 - three significant digits
    return f"{figure:,.{digits}f}" + (f" {unit}" if unit else "")
