"""Edges: every transition and every refusal, expected values, and that versions are exactly the changes."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.edges.commands import ChangeEdgeStatus, DetectEdge, ReviseEdge
from position_ledger.domain.edges.events import VALUES, EdgeDetected, EdgeRevised, EdgeStatusChanged
from position_ledger.domain.edges.state import Edge, edge_stream, evolve_edge
from position_ledger.domain.edges.vocabulary import EdgeStatus
from position_ledger.domain.families import state_from_json, state_json
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.world import NOON, D, World, examples, through_json

DETECTED, RECOMMENDED, ACTED_ON, EXPIRED, SETTLED, VOID = EdgeStatus
STREAM = edge_stream(Environment.PAPER, "e")
EDGE = {"environment": "paper", "name": "e"}
NOWHERE: dict[str, Any] = {"name": "e", "market": "M", "true_win_probability": 1}
EDGE_WITHOUT_PLACE: dict[str, Any] = {"name": "e", "market": "M", "true_win_probability": 1}
LATER = NOON + timedelta(seconds=1)
EARLIER = NOON - timedelta(seconds=1)


def detecting(**fields: Any) -> DetectEdge:
    told = {"market": "M", "true_win_probability": "0.60", "market_price": "0.45"}
    return DetectEdge(**EDGE | told | fields)


def moving(status: EdgeStatus, **fields: Any) -> ChangeEdgeStatus:
    outcome = {"actual_outcome": 1} if status is SETTLED else {}
    return ChangeEdgeStatus(**EDGE | outcome | fields, status=status)


def edge_of(world: World) -> Edge:
    edge = world.states[STREAM]
    assert isinstance(edge, Edge)
    return edge


@pytest.fixture
def world() -> World:
    """One edge, detected."""
    world = World()
    world.do(detecting(strategy=1, model=2, side="NO", confidence_level="high", recommended_action="buy"))
    return world


WAYS = {
    DETECTED: {RECOMMENDED, EXPIRED, SETTLED, VOID},
    RECOMMENDED: {ACTED_ON, EXPIRED, SETTLED, VOID},
    ACTED_ON: {EXPIRED, SETTLED, VOID},
    EXPIRED: set(),
    SETTLED: set(),
    VOID: set(),
}
PATHS = {
    DETECTED: [],
    RECOMMENDED: [RECOMMENDED],
    ACTED_ON: [RECOMMENDED, ACTED_ON],
    EXPIRED: [EXPIRED],
    SETTLED: [SETTLED],
    VOID: [VOID],
}


@pytest.mark.parametrize("before", EdgeStatus)
@pytest.mark.parametrize("after", EdgeStatus)
def test_every_transition_is_a_version_or_refused(world: World, before: EdgeStatus, after: EdgeStatus) -> None:
    # given an edge that has come this far
    for status in PATHS[before]:
        world.do(moving(status))
    version = edge_of(world).version

    # when it shall go there, then it goes, is there already, or is refused
    if after in WAYS[before]:
        decision = world.do(moving(after))
        assert [type(append.event) for append in decision.appends] == [EdgeStatusChanged]
        assert (edge_of(world).status, edge_of(world).version) == (after, version + 1)
    elif after is before:
        assert not world.do(moving(after)).appends
    else:
        with pytest.raises(CommandRejected) as caught:
            world.do(moving(after))
        assert caught.value.reason is Reason.EDGE_STATUS_INVALID
        assert edge_of(world).version == version


def test_a_settlement_is_told_once(world: World) -> None:
    world.do(moving(SETTLED, actual_outcome=1))
    assert not world.do(moving(SETTLED, actual_outcome="1.0")).appends
    with pytest.raises(CommandRejected, match="edge e is settled and cannot become settled"):
        world.do(moving(SETTLED, actual_outcome=0))
    assert edge_of(world).actual_outcome == 1


def test_a_status_follows_the_one_before_it_in_time(world: World) -> None:
    world.do(moving(RECOMMENDED, effective_at=LATER))
    with pytest.raises(CommandRejected) as caught:
        world.do(moving(ACTED_ON, effective_at=NOON))
    assert caught.value.reason is Reason.OUT_OF_ORDER
    world.do(moving(ACTED_ON, effective_at=LATER))
    assert edge_of(world).changed_at == LATER


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({}, "0.15"),
        ({"side": "NO"}, "0.15"),
        ({"expected_value": "0.10"}, "0.10"),
        ({"market_price": None}, None),
        ({"market_price": 0}, "0.60"),
        ({"side": "LONG", "market_price": 250}, None),
        ({"side": "SHORT", "market_price": 250, "expected_value": "-3"}, "-3"),
        ({"true_win_probability": "0.333333333333333333", "market_price": 1}, "-0.666666666666666667"),
    ],
)
def test_the_expected_value_is_as_stated_or_probability_minus_price(fields: dict[str, Any], value: str | None) -> None:
    world = World()
    world.do(detecting(**fields))
    assert edge_of(world).expected_value == (None if value is None else D(value))


def test_a_revision_changes_what_it_says_and_computes_the_expected_value_anew(world: World) -> None:
    # given
    before = edge_of(world)
    # when only the price moves
    decision = world.do(ReviseEdge(**EDGE, market_price="0.50", effective_at=LATER))
    # then
    after = edge_of(world)
    assert (after.market_price, after.expected_value) == (D("0.50"), D("0.10"))
    unchanged = set(VALUES) - {"market_price", "expected_value"}
    assert all(getattr(after, name) == getattr(before, name) for name in unchanged)
    event = decision.appends[0].event
    assert isinstance(event, EdgeRevised)
    assert (event.true_win_probability, event.confidence_level) == (D("0.60"), "high")


def test_a_stated_expected_value_stays_until_what_it_stands_on_changes(world: World) -> None:
    world.do(ReviseEdge(**EDGE, expected_value="0.30"))
    world.do(ReviseEdge(**EDGE, confidence_level="low"))
    assert edge_of(world).expected_value == D("0.30")
    world.do(ReviseEdge(**EDGE, true_win_probability="0.61"))
    assert edge_of(world).expected_value == D("0.16")


@pytest.mark.parametrize(
    "fields",
    [
        {"true_win_probability": "0.6"},
        {"market_price": "0.450", "confidence_level": "high"},
        {"expected_value": "0.15"},
        {},
    ],
)
def test_unchanged_values_make_no_event(world: World, fields: dict[str, Any]) -> None:
    decision = world.do(ReviseEdge(**EDGE, **fields, effective_at=LATER))
    assert not decision.appends
    assert decision.subject is not None
    assert decision.subject.stream == STREAM


def test_what_is_older_than_the_last_values_changes_nothing(world: World) -> None:
    assert not world.do(ReviseEdge(**EDGE, true_win_probability="0.9", effective_at=EARLIER)).appends
    assert world.do(ReviseEdge(**EDGE, true_win_probability="0.9", effective_at=NOON)).appends


def test_ticks_of_one_time_count_by_their_number() -> None:
    world = World()
    world.do(detecting(effective_at=NOON, tick=0))
    world.do(ReviseEdge(**EDGE, true_win_probability="0.7", effective_at=NOON, tick=2))
    assert not world.do(ReviseEdge(**EDGE, true_win_probability="0.8", effective_at=NOON, tick=1)).appends
    assert not world.do(ReviseEdge(**EDGE, true_win_probability="0.8", effective_at=NOON, tick=2)).appends
    assert world.do(ReviseEdge(**EDGE, true_win_probability="0.8", effective_at=NOON, tick=3)).appends


def test_detecting_under_a_name_in_use_revises_that_edge(world: World) -> None:
    revised = world.do(detecting(true_win_probability="0.65", effective_at=LATER))
    assert [type(append.event) for append in revised.appends] == [EdgeRevised]
    assert not world.do(detecting(true_win_probability="0.65", effective_at=LATER)).appends
    assert (edge_of(world).version, edge_of(world).strategy) == (2, 1)


@pytest.mark.parametrize(("field", "value"), [("market", "N"), ("strategy", 9), ("model", 9), ("side", "YES")])
def test_what_an_edge_is_about_never_changes(world: World, field: str, value: object) -> None:
    with pytest.raises(CommandRejected) as caught:
        world.do(detecting(**{field: value}))
    assert caught.value.reason is Reason.EDGE_IS_OTHER


def test_without_a_name_every_detection_is_an_edge_of_its_own() -> None:
    world = World()
    for _ in range(2):
        world.do(DetectEdge(environment="paper", market="M", true_win_probability="0.5"))
    assert [state.version for state in world.states.values()] == [1, 1]


def test_an_edge_is_addressed_by_the_number_of_any_of_its_versions(world: World) -> None:
    world.do(ReviseEdge(edge="EDGE-1", true_win_probability="0.7"))
    world.do(ReviseEdge(edge=2, true_win_probability="0.8"))
    world.do(ChangeEdgeStatus(edge="EDGE-2", environment="paper", name="e", status="recommended"))
    assert (edge_of(world).true_win_probability, edge_of(world).status) == (D("0.8"), RECOMMENDED)
    with pytest.raises(CommandRejected, match="environment is live but the edge has paper"):
        world.do(ReviseEdge(edge=1, environment="live", true_win_probability="0.9"))


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda: ReviseEdge(name="e"), Reason.FIELD_MISSING),
        (lambda: ReviseEdge(environment="paper"), Reason.FIELD_MISSING),
        (lambda: ChangeEdgeStatus(**EDGE, status="settled"), Reason.FIELD_MISSING),
        (lambda: ChangeEdgeStatus(**EDGE, status="void", actual_outcome=1), Reason.FIELD_UNKNOWN),
        (lambda: ChangeEdgeStatus(**EDGE, status="won"), Reason.FIELD_INVALID),
        (lambda: detecting(true_win_probability="-0.01"), Reason.PROBABILITY_OUT_OF_RANGE),
        (lambda: detecting(market_implied_probability="1.000000000000000001"), Reason.PROBABILITY_OUT_OF_RANGE),
        (lambda: detecting(true_win_probability=0.5), Reason.FLOAT_NOT_ALLOWED),
        (lambda: detecting(tick=-1), Reason.COUNT_INVALID),
        (lambda: DetectEdge(**NOWHERE), Reason.FIELD_MISSING),
        (lambda: ReviseEdge(edge="EDGE-9", true_win_probability=1), Reason.EDGE_UNKNOWN),
        (lambda: ReviseEdge(environment="live", name="e", true_win_probability=1), Reason.EDGE_UNKNOWN),
        (lambda: detecting(market_price="1.01"), Reason.PRICE_OUT_OF_RANGE),
        (lambda: ReviseEdge(**EDGE, market_price="1.01"), Reason.PRICE_OUT_OF_RANGE),
    ],
)
def test_what_is_refused(world: World, act: Any, reason: Reason) -> None:
    with pytest.raises(CommandRejected) as caught:
        world.do(act())
    assert caught.value.reason is reason
    assert len(world.log) == 1


def test_what_is_over_is_not_revised_but_old_ticks_of_it_are_no_error(world: World) -> None:
    world.do(moving(SETTLED, effective_at=LATER))
    assert not world.do(ReviseEdge(**EDGE, true_win_probability="0.9", effective_at=EARLIER)).appends
    assert not world.do(ReviseEdge(**EDGE, true_win_probability="0.6", effective_at=LATER)).appends
    with pytest.raises(CommandRejected) as caught:
        world.do(ReviseEdge(**EDGE, true_win_probability="0.9", effective_at=LATER))
    assert caught.value.reason is Reason.EDGE_NOT_LIVE


def test_positions_name_edges_of_their_own_environment_only(world: World) -> None:
    """S90."""
    world.open(edge=1)
    for environment, edge in (("live", 1), ("paper", 99)):
        with pytest.raises(CommandRejected) as caught:
            world.open(environment=environment, edge=edge)
        assert caught.value.reason is Reason.EDGE_UNKNOWN
        with pytest.raises(CommandRejected):
            world.fill("buy", 1, "0.5", environment=environment, edge=edge)


def test_events_that_do_not_fit_are_damage() -> None:
    begun = EdgeDetected(environment="paper", market="M", true_win_probability=D("0.5"))
    edge = evolve_edge(None, begun, NOON)
    with pytest.raises(TypeError, match="EdgeDetected cannot be folded into Edge"):
        evolve_edge(edge, begun, NOON)
    with pytest.raises(TypeError, match="EdgeRevised cannot be folded into NoneType"):
        evolve_edge(None, EdgeRevised(true_win_probability=D(1)), NOON)


chances = st.integers(0, 4).map(lambda quarter: D(quarter) / 4)
ticks = st.one_of(
    st.builds(lambda p, price, s: ("tick", p, price, s), chances, st.none() | chances, st.integers(-2, 5)),
    st.builds(lambda status, s: ("move", status, None, s), st.sampled_from(EdgeStatus), st.integers(-2, 5)),
)


@examples(300)
@given(history=st.lists(ticks, max_size=30))
def test_versions_are_exactly_the_changes_whatever_comes(history: list[tuple[Any, ...]]) -> None:
    """Law 12: every version differs from the one before it; the state is the fold of the log; an end is an end."""
    world = World()
    states: list[Edge] = []
    for kind, what, price, seconds in history:
        at = NOON + timedelta(seconds=seconds)
        if kind == "tick":
            command: Any = detecting(true_win_probability=what, market_price=price, effective_at=at)
        else:
            command = moving(what, effective_at=at)
        try:
            decision = world.do(command)
        except CommandRejected:
            continue
        assert len(decision.appends) <= 1
        if decision.appends:
            states.append(edge_of(world))

    def shown(edge: Edge) -> tuple[Any, ...]:
        return (*(getattr(edge, name) for name in VALUES), edge.status, edge.actual_outcome)

    assert [state.version for state in states] == list(range(1, len(states) + 1))
    assert all(shown(before) != shown(after) for before, after in pairwise(states))
    assert all(not before.status.is_final for before, _ in pairwise(states))
    assert all(
        before.valued_at <= after.valued_at and before.changed_at <= after.changed_at
        for before, after in pairwise(states)
    )
    assert world.replayed() == world.states
    for state in states:
        assert state_from_json("edge.1", state_json(state)) == state
    in_order = sorted((through_json(one) for one in world.log), key=lambda one: (one.effective_at, one.version))
    again: Any = None
    for append in in_order:
        again = evolve_edge(again, append.event, append.effective_at)
    assert states == [] or shown(again) == shown(states[-1])
