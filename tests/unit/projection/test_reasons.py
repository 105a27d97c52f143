"""What differs between the code of now and that which made a generation, named so that one knows why to rebuild."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from position_ledger.projection.definition import load_projections
from position_ledger.projection.fingerprint import parts_of
from position_ledger.projection.reasons import differences

POSITIONS = next(one for one in load_projections("position_ledger.reference.projections") if one.table == "positions")
TOPICS = sorted(parts_of(POSITIONS)["folds"])


def parts(**changes: Any) -> dict[str, Any]:
    """What another release was made of: this one's parts with some of them replaced, by part and name."""
    made = deepcopy(dict(parts_of(POSITIONS)))
    for part, change in changes.items():
        made[part] = {**made[part], **change} if isinstance(change, dict) else change
    return made


def without(part: str, topic: str) -> dict[str, Any]:
    made = parts()
    del made[part][topic]
    return made


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (parts(), []),
        (parts(folds={TOPICS[0]: "x"}), [f"the fold of {TOPICS[0]} changed"]),
        (parts(folds=dict.fromkeys(TOPICS[:2], "x")), [f"the folds of {TOPICS[0]}, {TOPICS[1]} changed"]),
        (
            parts(folds=dict.fromkeys(TOPICS, "x")),
            [f"the folds of {', '.join(TOPICS[:3])} and {len(TOPICS) - 3} more changed"],
        ),
        (parts(folds={"position.gone": "x"}), ["position.gone is no longer folded"]),
        (without("folds", TOPICS[1]), [f"{TOPICS[1]} is folded now"]),
        (
            parts(events={"position.opened": [0, "x"]}),
            ["event position.opened is version 1 now, the rows were made with 0"],
        ),
        (parts(events={"position.opened": [1, "x"]}), ["event position.opened has other fields"]),
        (parts(defaults={"side": "'YES'"}), ["the default of field side changed"]),
        (parts(key="x"), ["the business key is made differently"]),
    ],
)
def test_a_change_is_named(made: dict[str, Any], said: list[str]) -> None:
    assert differences(POSITIONS, POSITIONS.columns, made) == said


@pytest.mark.parametrize("made", [{}, parts()], ids=["parts unknown", "parts known"])
def test_columns_are_told_of_any_generation(made: dict[str, Any]) -> None:
    columns = list(POSITIONS.columns)
    assert differences(POSITIONS, columns[:-1], made) == [f"column {columns[-1]} was added"]
    assert differences(POSITIONS, [*columns, "worst"], made) == ["column worst was removed"]
    assert differences(POSITIONS, columns[::-1], made) == ["the columns are in another order"]


def test_older_code_says_what_it_lacks() -> None:
    made = parts(events={"position.opened": [2, "x"]}, folds={"position.split_back": "x"})
    assert differences(POSITIONS, [*POSITIONS.columns, "worst"], made, is_older=True) == [
        "this code lacks column worst",
        "this code does not fold position.split_back",
        "event position.opened is version 1 in this code, the rows were made with 2",
    ]
