"""What the kept generations say about a definition: current, kept, to be rebuilt, or for newer code only."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from position_ledger.checking.definitions import Around, judged, mismatch_of
from position_ledger.projection.definition import load_projections
from position_ledger.projection.fingerprint import fingerprint_of, parts_of
from position_ledger.projection.generations import Generation, of_other_code

POSITIONS = next(one for one in load_projections("position_ledger.reference.projections") if one.table == "positions")
OURS = Generation(1, "positions", fingerprint_of(POSITIONS), POSITIONS.columns, "ledger", "active", "worker", "1.0")
OTHER = replace(OURS, generation_id=2, fingerprint="other")
NEWER = replace(OTHER, release="2.0")
TOLD = replace(OTHER, parts={**parts_of(POSITIONS), "key": "x"})
HERE = Around("1.0")
UNTIL = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("generations", "around", "earlier", "state", "why", "remedy"),
    [
        ([], HERE, None, "never set up", "never had it", "migrate up"),
        ([OURS], HERE, 1, "current", "", ""),
        ([replace(OURS, state="retired", kept_until=UNTIL), OTHER], HERE, 1, "kept",
         "the retired generation, which is kept until 2026-11-25 12:00 UTC; readers see the one of release 1.0", ""),
        ([replace(OURS, state="building")], HERE, None, "kept", "readers see none yet", ""),
        ([OTHER], HERE, None, "needs rebuild", r"built by other code \(release 1.0\), which did not tell", "rebuild-projection"),
        ([TOLD], HERE, None, "needs rebuild", "the business key is made differently", "run rebuild-projection positions"),
        ([replace(OTHER, columns=POSITIONS.columns[1:])], Around("1.0", pending=(9,)), None, "needs rebuild",
         "column id was added", "migrate up"),
        ([replace(OTHER, columns=POSITIONS.columns[1:])], HERE, None, "needs rebuild",
         "column id was added", "write a migration"),
        ([replace(OTHER, columns=[*POSITIONS.columns, "x"])], Around("1.0", pending=(9,)), None, "needs rebuild",
         "column x was removed", "migrate up"),
        ([replace(OTHER, columns=[*POSITIONS.columns, "x"])], HERE, None, "only newer code may write it",
         "release 1.0 made its rows; this code lacks column x", "start release 1.0"),
        ([NEWER], HERE, None, "only newer code may write it", "release 2.0 made its rows", "start release 2.0"),
        ([replace(OTHER, release="0.9.9")], Around("0.10.0"), None, "needs rebuild", "release 0.9.9", "rebuild-projection"),
        ([OTHER], Around("1.0", unknown=(12,)), None, "only newer code may write it", "did not tell", "start release 1.0"),
        ([OTHER], HERE, 1, "only newer code may write it", "release 1.0", "run rebuild-projection positions with this code"),
        ([OTHER], HERE, 3, "needs rebuild", "release 1.0", "run rebuild-projection positions"),
    ],
    ids=["nothing", "ours", "retired", "building", "parts unknown", "parts told", "a column more, pending", "a column more",
         "a column less, pending", "a column less", "a later release", "an earlier release", "unknown migrations",
         "ours was before", "ours came after and went back"],
)  # fmt: skip
def test_the_state_of_a_definition(
    generations: list[Generation], around: Around, earlier: int | None, state: str, why: str, remedy: str
) -> None:
    found = judged(POSITIONS, generations, around, earlier)

    assert found.state == state
    assert re.search(why, found.why)
    assert remedy in found.remedy
    mismatch = mismatch_of(found)
    assert (mismatch is None) is (state in {"current", "kept"})
    assert mismatch is None or found.remedy in mismatch.sentence


@pytest.mark.parametrize(
    ("columns", "remedy"),
    [
        (POSITIONS.columns, "it: run rebuild-projection positions"),
        (POSITIONS.columns[1:], "the table lacks id: run position-ledger migrate up"),
        ([*POSITIONS.columns, "x"], "the row type lacks x: start the code that has the columns of positions"),
        (
            [*POSITIONS.columns[1:], "x"],
            "lacks x: run position-ledger migrate up, or start the code that has the columns",
        ),
    ],
)
def test_who_may_not_write_a_table_is_told_what_closes_the_gap(columns: list[str], remedy: str) -> None:
    assert remedy in of_other_code(POSITIONS, replace(OTHER, columns=columns))
