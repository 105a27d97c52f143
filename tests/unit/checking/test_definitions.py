"""What the kept generations say about a definition: current, kept, to be rebuilt, or for newer code only."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from position_ledger.checking.definitions import judged, mismatch_of
from position_ledger.projection.definition import load_projections
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation, of_other_code

POSITIONS = next(one for one in load_projections("position_ledger.reference.projections") if one.table == "positions")
OURS = Generation(1, "positions", fingerprint_of(POSITIONS), POSITIONS.columns, "ledger", "active", "worker", "1.0")
OTHER = replace(OURS, generation_id=2, fingerprint="other", release="2.0")


@pytest.mark.parametrize(
    ("generations", "state", "why"),
    [
        ([], "never set up", "never had it"),
        ([OURS], "current", ""),
        ([replace(OURS, state="retired"), OTHER], "kept", "writes the retired generation; readers see the one of release 2.0"),
        ([replace(OURS, state="building")], "kept", "readers see none yet"),
        ([OTHER], "needs rebuild", r"built by other code \(release 2.0\); its columns are the same, so the code of a fold"),
        ([replace(OTHER, columns=[*POSITIONS.columns, "x"])], "needs rebuild", "the row type lacks x"),
        ([replace(OTHER, columns=POSITIONS.columns[1:])], "needs rebuild", "the table lacks id"),
        ([replace(OURS, state="dropped"), OTHER], "only newer code may write it", "release 2.0"),
        ([replace(OURS, state="dropped")], "never set up", ""),
    ],
)  # fmt: skip
def test_the_state_of_a_definition(generations: list[Generation], state: str, why: str) -> None:
    found = judged(POSITIONS, generations)

    assert found.state == state
    assert re.search(why, found.why)
    mismatch = mismatch_of(found)
    assert (mismatch is None) is (state in {"current", "kept"})
    assert mismatch is None or "run " in mismatch.sentence


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
