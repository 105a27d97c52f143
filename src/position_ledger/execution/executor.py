"""Executing commands: decide on the states in memory, append in one round trip, and start over when others were faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from position_ledger.domain.commands import Command
from position_ledger.domain.decisions import Append, Decision, correction_key, decide, fill_key, streams_of
from position_ledger.domain.families import TRADE_EVENTS
from position_ledger.domain.identity import (
    content_digest,
    correction_digest,
    require_same_command,
    require_same_correction,
    require_same_fill,
)
from position_ledger.domain.rejections import CommandRejected
from position_ledger.errors import ConcurrencyError, LedgerError
from position_ledger.execution.broken import BROKEN, Append_, BrokenReads, append_surely
from position_ledger.execution.references import KnownReferences
from position_ledger.execution.streams import POSITION_PREFIX, Connect, ReadApart, StreamCache, WorkingStreams
from position_ledger.execution.turns import Turns, pause
from position_ledger.store.append import Key, KeyTaken, VersionConflict
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import NewEvent, Receipt, chain, new_event_id

Known = dict[str, tuple[bytes, dict[str, Any]]]
"""Keys that are in the log already: digest of the content, and what was appended under it."""

KEYS = "SELECT k.key, k.digest, k.appended FROM append_keys AS k WHERE k.key = ANY(%s)"
NUMBERS = """
SELECT e.originator_id, e.originator_version, e.notification_id
  FROM unnest(%s::uuid[], %s::bigint[]) AS w (stream, version)
  JOIN events AS e ON e.originator_id = w.stream AND e.originator_version = w.version
"""


@dataclass(frozen=True, slots=True)
class Executed:
    """What a command did. ``token`` is the number to wait for before its rows are read."""

    position_id: str | None
    """POS-n of the position that the command addressed or opened."""
    positions: tuple[str, ...]
    """Every position it opened or changed, the main one first."""
    token: int
    events: int
    """Events that it appended; 0: it changed nothing, which is no error."""
    triggered: tuple[str, ...] = ()
    """Exits that a mark touched, in order of precedence."""
    id: str | None = None
    """Business id of the row that the command is about: POS-, BAL-, MKT-, EDGE- or GS-."""
    trades: tuple[str, ...] = ()
    """TRD-n of every fill that it recorded."""
    is_repeat: bool = False
    """The same command or fill had been recorded before; this is its first result, and nothing was appended."""


Numbers = dict[tuple[UUID, int], int]
"""(stream, version) to sequence number."""


class NotAdmitted(LedgerError):
    """The caller's own condition refused a command before it was decided; nothing of it was written."""


Admit = Callable[[int, Command, WorkingStreams], None]
"""A condition of the caller beside the domain's: gets the place of a command in its batch, the command and the states
that it will be decided on. Raises `NotAdmitted` to refuse; called again whenever the command is decided again."""

Refusal = CommandRejected | NotAdmitted


@dataclass(frozen=True, slots=True)
class _Planned:
    """One command of a batch, decided."""

    command: Command
    decision: Decision
    keys: tuple[Key, ...]


@dataclass(slots=True)
class _Plan:
    """An attempt at a batch: what it knows, and what becomes of every place, which is in exactly one of four."""

    streams: WorkingStreams
    known: Known
    numbers: Numbers
    """Of what was appended under the known keys."""
    now: datetime
    admit: Admit | None = None
    planned: dict[int, _Planned] = field(default_factory=dict)
    repeats: dict[int, Executed] = field(default_factory=dict)
    """Repeats of what is in the log."""
    echoes: dict[int, int] = field(default_factory=dict)
    """Repeats of an earlier command of this batch: its place."""
    refused: dict[int, Refusal] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    """Keys that this batch will append, and the place of the command they belong to."""


class Executor:
    """Executes commands against one ledger. Safe for threads."""

    def __init__(
        self,
        connect: Connect,
        append: Append_,
        codec: Codec,
        *,
        streams_cached_max: int,
        retries_max: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._connect = connect
        self._append = append
        self._codec = codec
        self._cache = StreamCache(streams_cached_max)
        self._turns = Turns()
        self._references = KnownReferences(connect)
        self._retries_max = retries_max
        self._clock = clock

    def execute(self, commands: Sequence[Command], admit: Admit | None = None) -> tuple[Executed, ...]:
        """Execute a batch in one atomic append; results in the order of the commands.

        Raises:
            CommandRejected: the first command that is refused; nothing of the batch was written.
            NotAdmitted: ``admit`` refused one; likewise.
            ConcurrencyError: other writers were faster at every retry; nothing was written.
            DatabaseUnavailable: the answer was lost and the database did not come back to tell.
        """
        outcomes = self._until_written(commands, known={}, refresh=False, admit=admit, refuses_each=False)
        return tuple(outcome for outcome in outcomes if isinstance(outcome, Executed))

    def execute_each(self, commands: Sequence[Command], admit: Admit | None = None) -> tuple[Executed | Refusal, ...]:
        """Execute the commands that are accepted in one atomic append; a refused one is returned in its place.

        Each command is decided on what those before it left, as if the refused ones had not been sent. Reads all
        streams afresh, in a few round trips: made for large batches. Raises as `execute`, but no `CommandRejected`.
        """
        states = WorkingStreams(self._connect, self._codec, self._cache, self._references, refresh=False)
        known = self._look_up(self._all_keys(commands, states))
        return self._until_written(commands, known=known, refresh=True, admit=admit, refuses_each=True)

    def _until_written(
        self, commands: Sequence[Command], *, known: Known, refresh: bool, admit: Admit | None, refuses_each: bool
    ) -> tuple[Executed | Refusal, ...]:
        """Plan and append until no other writer is faster."""
        conflicts, broken = 0, BrokenReads()
        with self._turns.turn() as turn:
            while conflicts <= self._retries_max:
                streams = WorkingStreams(self._connect, self._codec, self._cache, self._references, refresh=refresh)
                try:
                    try:
                        plan = self._plan(commands, streams, known, admit, refuses_each=refuses_each)
                    except BROKEN as error:
                        broken.again(error)
                        continue
                    if not turn.was_taken and self._turns.is_line(streams.shared()):
                        turn.take(streams.shared())
                        continue  # who was ahead has changed the states, and left them in memory
                    return self._appended(commands, plan)
                except _Stale:
                    refresh = True
                except KeyTaken:
                    found = self._look_up(self._all_keys(commands, streams))
                    if not found.keys() - known.keys():
                        raise
                    known.update(found)
                except (VersionConflict, ReadApart):
                    refresh = True
                    if turn.was_taken:
                        pause(conflicts)  # the others are in other processes
                    turn.take(streams.shared())
                    conflicts += 1
        msg = f"{conflicts} attempts met other writers on the same streams; nothing was written, repeat it"
        raise ConcurrencyError(msg)

    def forget(self) -> None:
        """Drop every state kept in memory."""
        self._cache.clear()
        self._references.forget()

    def forget_references(self) -> None:
        """Ask the database again which rows its reference tables have."""
        self._references.forget()

    def _plan(
        self,
        commands: Sequence[Command],
        streams: WorkingStreams,
        known: Known,
        admit: Admit | None,
        *,
        refuses_each: bool,
    ) -> _Plan:
        """Decide every command on what those before it leave. Raises the first refusal, unless each is refused alone."""
        streams.preload({stream for command in commands for stream in streams_of(command)})
        if len(commands) > 1:
            refs = (getattr(command, "position_id", None) for command in commands)
            streams.preload_positions({ref for ref in refs if isinstance(ref, str | int)})
        plan = _Plan(streams, known, self._numbers_of(known), self._clock(), admit)
        for place, command in enumerate(commands):
            try:
                self._plan_one(place, command, plan)
            except (CommandRejected, NotAdmitted) as refusal:
                if not refuses_each:
                    self._recheck(commands, streams, known)
                    raise
                plan.refused[place] = refusal
        if plan.refused:
            self._recheck(commands, streams, known)
        return plan

    def _plan_one(self, place: int, command: Command, plan: _Plan) -> None:
        """Find out that a command is a repeat, or decide it. Raises its refusal."""
        names = _key_names(command, plan.streams) if plan.known or plan.owners else ()
        if names and (_is_repeat(place, command, names, plan) or _is_echo(place, command, names, plan)):
            return
        if plan.admit is not None:
            plan.admit(place, command, plan.streams)
        decision = decide(command, plan.streams, plan.now)
        plan.streams.fold(decision)
        plan.streams.note_handle(command, decision.opened)
        planned = _Planned(command, decision, self._keys(command, decision))
        plan.planned[place] = planned
        for key in planned.keys:
            plan.owners[key.key] = place

    def _appended(self, commands: Sequence[Command], plan: _Plan) -> tuple[Executed | Refusal, ...]:
        """Append what was decided, and say what became of each command."""
        streams = plan.streams
        appends = [(planned, append) for planned in plan.planned.values() for append in planned.decision.appends]
        receipts: Sequence[Receipt] = ()
        if appends:
            events = self._encoded(appends, streams)
            keys = [key for one in plan.planned.values() for key in one.keys]
            receipts = append_surely(
                self._append, self._connect, events, keys, streams.reads({event.stream for event in events})
            )
            streams.keep(zip(events, receipts, strict=True))
        elif plan.planned:
            self._recheck(commands, streams, plan.known)
        outcomes: dict[int, Executed | Refusal] = {**plan.repeats, **plan.refused}
        begin = 0
        for place, planned in plan.planned.items():
            end = begin + len(planned.decision.appends)
            outcomes[place] = _done(planned, receipts[begin:end], streams)
            begin = end
        for place, first in plan.echoes.items():
            executed = outcomes[first]
            outcomes[place] = replace(executed, is_repeat=True) if isinstance(executed, Executed) else executed
        return tuple(outcomes[place] for place in range(len(commands)))

    def _recheck(self, commands: Sequence[Command], streams: WorkingStreams, known: Known) -> None:
        """Find out, before saying no or «nothing to do», whether it was done before or decided on old states."""
        found = self._look_up(self._all_keys(commands, streams))
        if found.keys() - known.keys():
            raise KeyTaken
        if streams.from_cache:
            raise _Stale

    def _encoded(self, appends: Sequence[tuple[_Planned, Append]], streams: WorkingStreams) -> list[NewEvent]:
        """The events as they are stored, each chained to the one before it in its stream."""
        hashes: dict[UUID, bytes] = {}
        events = []
        for planned, append in appends:
            stream, version, topic = append.stream, append.version, append.event.TOPIC
            state, metadata = self._codec.encode(append.event), _metadata(planned.command)
            previous = hashes.get(stream) or streams.loaded(stream).stream_hash
            digest = hashes[stream] = chain(previous, stream, version, topic, state, metadata)
            events.append(
                NewEvent(stream, version, topic, state, new_event_id(), append.effective_at, digest, metadata)
            )
        return events

    # Repeats

    def _keys(self, command: Command, decision: Decision) -> tuple[Key, ...]:
        if not decision.appends:
            return ()
        names = [f"command:{command.command_id}"] if command.command_id is not None else []
        if decision.fill_key is not None:
            names.append(f"fill:{decision.fill_key}")
        if not names and not decision.correction_keys:
            return ()
        appended = {
            "events": [[append.stream, append.version] for append in decision.appends],
            "positions": decision.positions,
            "triggered": [str(kind) for kind in decision.triggered],
            "opened": decision.opened,
            "subject": _subject(decision),
            "trades": [[append.stream, append.version] for append in decision.appends if _is_trade(append)],
        }
        digest = content_digest(command) if names else b""
        keys = [Key(name, digest, appended) for name in names]
        return (*keys, *(Key(name, correction_digest(command), appended) for name in decision.correction_keys))

    @staticmethod
    def _all_keys(commands: Sequence[Command], streams: WorkingStreams) -> list[str]:
        return [name for command in commands for name in _key_names(command, streams)]

    def _look_up(self, names: Sequence[str]) -> Known:
        if not names:
            return {}
        with self._connect() as connection:
            rows = connection.execute(KEYS, (list(names),)).fetchall()
        return {key: (bytes(digest), appended) for key, digest, appended in rows}

    def _numbers_of(self, known: Known) -> Numbers:
        """Numbers of all that was appended under the keys, in one round trip."""
        if not known:
            return {}
        wanted = {pair for _, appended in known.values() for pair in (*_pairs(appended), *_openings(appended))}
        if not wanted:
            return {}
        with self._connect() as connection:
            rows = connection.execute(NUMBERS, ([s for s, _ in wanted], [v for _, v in wanted])).fetchall()
        return {(stream, version): seq for stream, version, seq in rows}


class _Stale(Exception):
    """A refusal was decided on states from memory; they must be read again before it may be told."""


def _is_trade(append: Append) -> bool:
    return type(append.event) in TRADE_EVENTS


def _subject(decision: Decision) -> list[Any] | None:
    """Prefix of the business id and stream of what a command is about, as its key keeps it."""
    if decision.subject is not None:
        return [decision.subject.family.prefix, decision.subject.stream]
    return [POSITION_PREFIX, decision.positions[0]] if decision.positions else None


def _pairs(appended: dict[str, Any]) -> list[tuple[UUID, int]]:
    return [(UUID(stream), int(version)) for stream, version in appended["events"]]


def _openings(appended: dict[str, Any]) -> list[tuple[UUID, int]]:
    subject = appended.get("subject")
    return [(UUID(stream), 1) for stream in (*appended["positions"], *([subject[1]] if subject else []))]


def _first_result(appended: dict[str, Any], numbers: Numbers) -> Executed:
    positions = tuple(f"{POSITION_PREFIX}{numbers[UUID(stream), 1]}" for stream in appended["positions"])
    pairs = _pairs(appended)
    subject = appended.get("subject")
    return Executed(
        positions[0] if positions else None,
        positions,
        token=max(numbers[pair] for pair in pairs),
        events=len(pairs),
        triggered=tuple(appended["triggered"]),
        id=f"{subject[0]}{numbers[UUID(subject[1]), 1]}" if subject else None,
        trades=tuple(f"TRD-{numbers[UUID(stream), version]}" for stream, version in appended.get("trades", ())),
        is_repeat=True,
    )


def _require_same(name: str, command: Command, digest: bytes) -> None:
    if name.startswith("command:"):
        require_same_command(command, digest)
    elif name.startswith("fill:"):
        require_same_fill(command, digest)
    else:
        require_same_correction(command, digest)


def _is_repeat(place: int, command: Command, names: Sequence[str], plan: _Plan) -> bool:
    """Take the first result of a command that is in the log already; other content under its id is a conflict."""
    name = next((name for name in names if name in plan.known), None)
    if name is None:
        return False
    digest, appended = plan.known[name]
    _require_same(name, command, digest)
    opened = appended.get("opened")
    plan.streams.note_handle(command, UUID(opened) if opened else None)
    plan.repeats[place] = _first_result(appended, plan.numbers)
    return True


def _is_echo(place: int, command: Command, names: Sequence[str], plan: _Plan) -> bool:
    """Note a repeat of an earlier command of the same batch; other content under its id is a conflict."""
    name = next((name for name in names if name in plan.owners), None)
    if name is None:
        return False
    first = plan.owners[name]
    planned = plan.planned[first]
    _require_same(name, command, next(key.digest for key in planned.keys if key.key == name))
    plan.streams.note_handle(command, planned.decision.opened)
    plan.echoes[place] = first
    return True


def _key_names(command: Command, streams: WorkingStreams) -> list[str]:
    names = []
    if command.command_id is not None:
        names.append(f"command:{command.command_id}")
    if getattr(command, "venue_fill_id", None) is not None:
        try:
            key = fill_key(command, streams)
        except CommandRejected:
            key = None
        if key is not None:
            names.append(f"fill:{key}")
    correction = correction_key(command, streams)
    return names if correction is None else [*names, correction]


def _done(planned: _Planned, receipts: Sequence[Receipt], streams: WorkingStreams) -> Executed:
    """The result of a command, given the receipts of its own events: none, if it changed nothing.

    The token of a command that changed nothing is the last number of what it addressed.
    """
    decision = planned.decision
    named = [streams.loaded(stream) for stream in decision.positions]
    positions = tuple([f"{POSITION_PREFIX}{one.opened_seq}" for one in named])
    subject = decision.subject
    of_subject = streams.loaded(subject.stream) if subject else None
    seen = [receipt.seq for receipt in receipts] or [one.last_seq for one in (*named, of_subject) if one]
    return Executed(
        positions[0] if positions else None,
        positions,
        token=max(seen, default=0),
        events=len(receipts),
        triggered=tuple([str(kind) for kind in decision.triggered]),
        id=f"{subject.family.prefix}{of_subject.opened_seq}" if subject and of_subject else next(iter(positions), None),
        trades=tuple(
            [f"TRD-{r.seq}" for append, r in zip(decision.appends, receipts, strict=False) if _is_trade(append)]
        ),
    )


def _metadata(command: Command) -> dict[str, str]:
    given = (
        ("command_id", command.command_id),
        ("actor", command.actor),
        ("correlation_id", command.correlation_id),
        ("causation_id", command.causation_id),
    )
    return {name: str(value) for name, value in given if value is not None}
