"""The incident note: what was rolled back, when, by whom, why, how it ended and what it cost, as Markdown (S62)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from position_ledger.operations.common import Tell

NOTES_A_SECOND_MAX = 100


@dataclass(frozen=True, slots=True)
class Incident:
    """One rollback. Times in UTC; ``status`` is a sentence; ``lost`` a line for each thing; ``database`` no password."""

    subject: str
    action: str
    migrations: Sequence[str]
    began_at: datetime
    ended_at: datetime
    reason: str | None
    done_by: str
    database: str
    status: str
    lost: Sequence[str]
    next_step: str

    @property
    def text(self) -> str:
        """The note."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"# Incident: {_flat(self.subject)}"
        yield ""
        yield "| | |"
        yield "|---|---|"
        for name, value in self._facts():
            yield f"| {name} | {_cell(value)} |"
        yield ""
        yield "## What was lost"
        yield ""
        yield from (f"- {_flat(line)}" for line in self.lost or ["nothing"])
        yield ""
        yield "## Next"
        yield ""
        yield self.next_step

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "Migration", ", ".join(self.migrations) or "none"
        yield "Time (UTC)", f"{self.began_at:%Y-%m-%d %H:%M:%S} to {self.ended_at:%H:%M:%S}"
        yield "Reason", self.reason or "not given"
        yield "Action", f"`{self.action}`"
        yield "By", self.done_by
        yield "Database", self.database
        yield "Status", self.status


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def write_incident(folder: Path, incident: Incident, tell: Tell) -> Path | None:
    """Write the note into the folder, which is made if needed, and say where; never over another one.

    A note that cannot be written is told instead, whole: the rollback is done, and its note is not lost with a disk.
    """
    stem = f"{incident.began_at:%Y%m%dT%H%M%SZ}-{_slug(incident.subject)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _write_new(folder, stem, incident.text)
    except OSError as error:
        tell(f"the incident note cannot be written to {folder} ({error.strerror or error}); it says:")
        for line in incident.text.splitlines():
            tell(line)
        return None
    tell(f"incident note: {path}")
    return path


def _write_new(folder: Path, stem: str, text: str) -> Path:
    for number in range(1, NOTES_A_SECOND_MAX):
        path = folder / f"{stem}{'' if number == 1 else f'-{number}'}.md"
        try:
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(0, "there are too many notes of this second", str(folder))


def _slug(subject: str) -> str:
    words = "".join(sign if sign.isascii() and (sign.isalnum() or sign == "_") else " " for sign in subject)
    return "-".join(words.lower().split())[:80]


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _flat(text).replace("|", "\\|")
