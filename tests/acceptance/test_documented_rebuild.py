"""docs/how-to/rebuild.md: its commands answer what the page shows, while they run and when they were interrupted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from position_ledger.projection import building, watching
from tests.support.command_line import in_this_process
from tests.support.engine import Traffic
from tests.support.pages import alike, commands, text_of
from tests.support.rebuilding import execute, running_rebuild

if TYPE_CHECKING:
    from position_ledger import Ledger

SHOWN = dict(commands(text_of("rebuild")))
FAST = 100.0
"""Events a second: a load of a test's history lasts until the test has seen it, and has a rate and an end."""


@pytest.fixture(autouse=True)
def _history(ledger: Ledger) -> None:
    Traffic(ledger, 5).run(150)
    ledger.catch_up()


def test_a_rebuild_says_what_the_page_shows(ledger: Ledger) -> None:
    answer = in_this_process(ledger.database_url)("rebuild-projection", "positions", "--processes", "2")
    assert answer.code == 0
    *said, nobody_follows = answer.err.splitlines(keepends=True)
    assert "start position-ledger worker" in nobody_follows  # the reader of the page has one
    shown = alike(SHOWN["rebuild-projection positions --processes 2"])
    assert shown.fullmatch("".join(said) + answer.out), (answer, shown.pattern)


def test_a_rebuild_that_was_interrupted_goes_on_as_the_page_shows(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_named: object) -> None:
        raise KeyboardInterrupt

    run = in_this_process(ledger.database_url)
    with monkeypatch.context() as patched:
        patched.setattr(building, "load", interrupted)
        assert run("rebuild-projection", "positions").code == 130
    again = run("rebuild-projection", "positions")
    assert again.code == 0
    assert alike(SHOWN["rebuild-projection positions"]).match(again.err), again


def test_status_shows_how_far_it_is_as_the_page_does(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.05)
    run = in_this_process(ledger.database_url)
    with running_rebuild(ledger.settings, throttle_per_s=FAST) as going:
        going.until(lambda row: row.events_per_s is not None and row.eta is not None)
        text, document = run("status").out, run("status", "--json").document
        execute(ledger.settings, "UPDATE projection_rebuilds SET throttle_per_s = NULL")
        assert going.report().swapped
    shown = alike(SHOWN["position-ledger status"].splitlines()[-1])
    assert any(shown.fullmatch(line.replace(" at most 100 events/s,", "")) for line in text.splitlines()), text
    # and the fields and states that the page names are those that there are
    (row,) = document["rebuilds"]
    page = text_of("rebuild")
    named = re.findall(r"`(state|events_done|events_total|events_per_s|eta|yields_to|problem)`", page)
    assert set(named) <= row.keys()
    assert row["state"] in page
