"""What stays true is said once, and then once a minute."""

from __future__ import annotations

from position_ledger.projection.seldom import REMEMBERED_MAX, Seldom


def test_the_same_words_are_said_once_a_minute() -> None:
    now = [0.0]
    seldom = Seldom(60.0, lambda: now[0])
    said = []
    for second in range(121):
        now[0] = float(second)
        said.append(seldom.may_say("nothing to write"))
    assert [second for second, one in enumerate(said) if one] == [0, 60, 120]
    assert seldom.may_say("something else")


def test_what_it_remembers_has_a_limit() -> None:
    seldom = Seldom(60.0, lambda: 0.0)
    assert all(seldom.may_say(str(number)) for number in range(3 * REMEMBERED_MAX))
