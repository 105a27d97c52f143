"""The pages of docs/how-to as tests follow them: what is to be run, what is shown, and whether an answer is like it."""

from __future__ import annotations

import re
from pathlib import Path

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
ANYTHING = "…"


def text_of(page: str) -> str:
    """A page by its name."""
    return (HOW_TO / f"{page}.md").read_text(encoding="utf-8")


def commands(block: str) -> list[tuple[str, str]]:
    """Each command of a block, or of a page, with the output that is shown for it."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("```")[0].partition("\n")
        found.append((command, shown))
    return found


def exactly(shown: str) -> re.Pattern[str]:
    """What is shown: … stands for anything in its line, at the beginning of one for any lines before it as well."""
    return re.compile(_free(re.escape(shown)))


def alike(shown: str) -> re.Pattern[str]:
    """What is shown, with numbers, digests and the width of columns of another moment."""
    pattern = re.escape(shown).replace(r"\ ", " ")
    pattern = re.sub(r"\b[0-9a-f]{16}\b", "<digest>", pattern)
    pattern = re.sub(r"(?<![.\d])\d+(?:,\d{3})*(?!\\?[.\d])", r"[\\d,]+", pattern)
    pattern = re.sub(r"\d+\\\.\d\d?(?!\d)", r"\\d+\\.\\d+", pattern)
    return re.compile(_free(re.sub(r" {2,}", " +", pattern)).replace("<digest>", "[0-9a-f]{16}"))


def _free(pattern: str) -> str:
    """Of a pattern of what is shown, in which … stands as it is."""
    lines = re.sub(rf"^{ANYTHING}\\?\n", "(?:.*\n)*", pattern, flags=re.MULTILINE)
    return re.sub(rf"^{ANYTHING}", "(?:.*\n)*.*", lines, flags=re.MULTILINE).replace(ANYTHING, ".*")
