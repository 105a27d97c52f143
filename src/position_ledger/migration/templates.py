"""The text of new migrations: complete files with header and sections, from a template and what fills it.

Nothing here reads a folder or a database. Each file of a template can be applied as it is written, except that of
``empty``, whose statements refuse to run until they have been replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from position_ledger.errors import MigrationError
from position_ledger.migration.template_filling import TEMPLATES, Filling, check_filling
from position_ledger.migration.template_sections import Sections, sections_of

if TYPE_CHECKING:
    from datetime import date

__all__ = ["TEMPLATES", "Draft", "Filling", "draft_files"]

_NAME: Final = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
NAME_LENGTH_MAX: Final = 80


@dataclass(frozen=True, slots=True)
class Draft:
    """A migration to be written; ``day`` is today in UTC."""

    name: str
    template: str
    filling: Filling
    author: str
    day: date
    summary: str = ""


def draft_files(draft: Draft, number: int) -> tuple[tuple[str, str], ...]:
    """File names and texts, one or two, from ``number`` on. Raises MigrationError for what cannot be filled in."""
    _check_name(draft.name)
    check_filling(draft.template, draft.filling)
    parts = sections_of(draft.template, draft.filling)
    return tuple(_file(draft, number + offset, sections) for offset, sections in enumerate(parts))


def _file(draft: Draft, number: int, sections: Sections) -> tuple[str, str]:
    name = f"{draft.name}{sections.suffix}"
    header = {
        "Migration": f"{number:03}",
        "Description": name.replace("_", " ").capitalize(),
        "Date": draft.day.isoformat(),
        "Author": " ".join(draft.author.split()) or "unknown",
        "Related": f"the projection of {draft.filling.table}" if draft.filling.is_projected else "none",
        "Summary": " ".join(draft.summary.split()) or sections.summary,
        "Rollback": sections.rollback_says,
        **({} if sections.is_transactional else {"Transactional": "no"}),
    }
    lines = [f"-- {key}: {value}" for key, value in header.items()]
    for section in ("forward", "verify", "rollback"):
        lines += ["", f"-- {section}", "", getattr(sections, section).strip("\n")]
    return f"{number:03}_{name}.sql", "\n".join(lines) + "\n"


def _check_name(name: str) -> None:
    if re.match(r"\d+_", name):
        raise MigrationError(f"the name {name!r} begins with a number; leave it out, the next free one is taken")
    if not _NAME.fullmatch(name) or len(name) > NAME_LENGTH_MAX:
        raise MigrationError(
            f"the name {name[:NAME_LENGTH_MAX]!r} is not lower-case words, digits and single underscores of at most "
            f"{NAME_LENGTH_MAX} characters, such as add_notes; choose another"
        )
