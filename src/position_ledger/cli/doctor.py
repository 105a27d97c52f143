"""The doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import terminal, write_json, write_lines
from position_ledger.cli.running import ANSWER_IS_NO
from position_ledger.doctor import Verdict, examine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.doctor import Finding

NAME_WIDTH = 26


@command(
    """Check this installation: Python, packages, settings in force, servers, rights, schema, projecting, clock, limits.

    Exit code 1 if something is wrong; notes are no fault. Passwords are never shown.

    \b
    Example:
      position-ledger doctor
    """
)
@as_json
def doctor(*, as_json: bool) -> int:
    """Check and say what was found."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            write_lines(_lines(finding))
    wrong = sum(finding.verdict is Verdict.WRONG for finding in findings)
    if as_json:
        write_json({"healthy": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        terminal().print(
            f"{wrong} of {len(findings)} findings are wrong" if wrong else "nothing is wrong", style="bold"
        )
    return ANSWER_IS_NO if wrong else 0


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.verdict.value:<5}  {finding.check:<{NAME_WIDTH}}  {finding.sentence}"
    if finding.remedy:
        yield f"{'':<5}  {'':<{NAME_WIDTH}}  -> {finding.remedy}"
