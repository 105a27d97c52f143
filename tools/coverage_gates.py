"""Fail when a module is covered less than its gate: ``python -m tools.coverage_gates coverage.json``.

The gates are ``[tool.coverage_gates]`` in pyproject.toml: the beginning of a path -> percent of lines and branches.
An average hides a module that nobody tests; here every module stands alone (S46). The gates of
``[tool.coverage_gates_as_root]`` hold where root runs the tests; for anybody else those modules have none.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Shortfall(NamedTuple):
    """A module below its gate; both figures in percent."""

    module: str
    covered: float
    gate: float
    missing: Sequence[int]


def gates_for(tool: Mapping[str, Any], *, is_root: bool) -> dict[str, float]:
    """Return all gates of a pyproject's ``tool`` table for whoever ran the tests."""
    as_root = tool.get("coverage_gates_as_root", {})
    return {**tool["coverage_gates"], **(as_root if is_root else dict.fromkeys(as_root, 0.0))}


def gate_of(module: str, gates: Mapping[str, float]) -> float:
    """Return the gate of the longest beginning of ``module``."""
    return gates[max((start for start in gates if module.startswith(start)), key=len)]


def shortfalls(report: Mapping[str, Any], gates: Mapping[str, float]) -> list[Shortfall]:
    """Return every module of a ``coverage json`` report that is below its gate, worst first."""
    found = [
        Shortfall(module, data["summary"]["percent_covered"], gate_of(module, gates), data["missing_lines"])
        for module, data in report["files"].items()
    ]
    return sorted((one for one in found if one.covered < one.gate), key=lambda one: one.covered)


def idle_gates(report: Mapping[str, Any], gates: Mapping[str, float]) -> list[str]:
    """Return the gates that no measured module passes through: a renamed folder must not lose its gate in silence."""
    return [start for start in gates if not any(module.startswith(start) for module in report["files"])]


def table(rows: Sequence[Shortfall]) -> str:
    """Return one line per module, with the first uncovered lines."""
    width = max(len(row.module) for row in rows)
    return "\n".join(
        f"{row.module:{width}}  {row.covered:6.2f} %  of {row.gate:g} %  "
        f"lines {', '.join(map(str, row.missing[:12]))}{', …' if len(row.missing) > 12 else ''}"  # noqa: PLR2004
        for row in rows
    )


def main(arguments: Sequence[str]) -> int:
    """Check the report named by the only argument; return 0 when all gates hold, else 1."""
    report = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    gates = gates_for(
        tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"], is_root=os.geteuid() == 0
    )
    below, idle = shortfalls(report, gates), idle_gates(report, gates)
    if below:
        print(f"{len(below)} modules are below their coverage gate:\n{table(below)}")
    for start in idle:
        print(f"coverage gate {start!r} holds for no measured module: correct [tool.coverage_gates] or measure it")
    if not below and not idle:
        print(f"coverage: all {len(report['files'])} modules pass their gates")
    return 1 if below or idle else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
