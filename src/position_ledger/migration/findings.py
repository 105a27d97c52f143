"""What a plan has to say about a migration: how bad, a stable code, where, why, and the form that is safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Finding", "Severity", "by_weight"]

Severity = Literal["error", "warning", "note"]
_WEIGHT: Final = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know before a migration runs; an error makes the plan unsafe.

    ``file`` is "" and ``line`` 0 where it concerns no line of a file. ``safe_form`` is SQL (or a command) to copy.
    """

    severity: Severity
    code: str
    file: str
    line: int
    statement: str
    cause: str
    safe_form: str = ""


def by_weight(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by file and line; the same finding once."""
    unique = dict.fromkeys(findings)
    return tuple(sorted(unique, key=lambda each: (_WEIGHT.index(each.severity), each.file, each.line, each.code)))
