"""Positions of binary markets as trading code wants to handle them: calls with plain arguments, rows as answers.

Every call waits until what it wrote, or what it is asked about, is in the tables, whatever the ledger's own setting.
Two rules differ on purpose from managers that hold a NO position in YES prices (docs/how-to/position-manager.md): a
price is that of the contract that is held, and the margin that a position needs is what it costs, for either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from position_ledger.domain.commands import ClosePosition, MarkPosition, OpenPosition, SetExits
from position_ledger.domain.exits import TrailingState, TrailingTerms, touched
from position_ledger.domain.fields import RowId, Text
from position_ledger.domain.figures import unrealized
from position_ledger.domain.numbers import Money, Price, Quantity, amount_of
from position_ledger.domain.refusals import rejected
from position_ledger.domain.rejections import CommandRejected, FloatRefused, Reason
from position_ledger.domain.vocabulary import Environment, ExitKind, Side
from position_ledger.errors import ConcurrencyError, InsufficientMarginError, LedgerError
from position_ledger.execution.executor import NotAdmitted

if TYPE_CHECKING:
    from position_ledger.domain.commands import Command
    from position_ledger.domain.position import Position
    from position_ledger.execution.executor import Admit, Executed
    from position_ledger.ledger import Ledger
    from position_ledger.reading import TableRow

__all__ = ["PositionManager", "RequestRefused"]

EXITS_TRIES_MAX: Final = 10
"""How often setting a trailing stop starts over because the other exits were changed meanwhile."""

_OUR_NAMES: Final = {
    "market": "market_id",
    "strategy": "strategy_id",
    "model": "model_id",
    "metadata": "position_metadata",
    "environment": "execution_environment",
    "trailing_stop": "trailing_stop_config",
}


class RequestRefused(LedgerError, ValueError):
    """What was asked of a manager cannot be done, and nothing was written; ``reason`` is that of the ledger, if any."""

    def __init__(self, message: str, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class PositionManager:
    """Opens, values and closes positions of one ledger. As safe for threads as the ledger; holds no state of its own.

    Every method that names a position takes ``POS-n`` or any surrogate id that the position ever had.

    Raises of all methods: TypeError for a float; ValueError (`RequestRefused`) for anything else that cannot be done;
    `NotYetVisible` when what was written did not become visible in time: it is committed and must not be repeated;
    `ConcurrencyError` and `DatabaseUnavailable` as `Ledger.execute`.
    """

    def __init__(self, ledger: Ledger, execution_environment: str | None = None) -> None:
        """``execution_environment``: live, paper or backtest, for every call; None: each call that needs it says it."""
        self._ledger = ledger
        self._environment = None if execution_environment is None else _environment(execution_environment)

    # Opening, valuing, closing

    def open_position(  # noqa: PLR0913 - the signature that trading code knows
        self,
        market_id: str,
        strategy_id: int | None,
        model_id: int | None,
        side: str,
        quantity: Decimal | int | str,
        entry_price: Decimal | int | str,
        available_margin: Decimal | int | str,
        target_price: Decimal | int | str | None = None,
        stop_loss_price: Decimal | int | str | None = None,
        trailing_stop_config: TrailingTerms | Mapping[str, Any] | None = None,
        position_metadata: Mapping[str, Any] | None = None,
        execution_environment: str | None = None,
        account: str = "default",
        *,
        command_id: str | None = None,
    ) -> TableRow:
        """Open a new position, always, and answer its row: ``position_id`` is POS- and the ``id`` of this row.

        It needs ``quantity * entry_price`` of margin on either side: the most that it can lose. ``current_price`` is
        the entry price until the first update. ``command_id``: repeating the call under the same id is safe.

        Raises:
            InsufficientMarginError: ``available_margin`` is less, or the account has less money (if it was ever funded).
            ValueError: entry price outside [0.01, 0.99] (or what the market says), side not exactly YES or NO, …
        """
        with _in_our_words():
            command = OpenPosition(
                environment=self._environment_of(execution_environment),
                account=account,
                market=market_id,
                strategy=strategy_id,
                model=model_id,
                side=side,
                quantity=quantity,
                entry_price=entry_price,
                target_price=target_price,
                stop_loss_price=stop_loss_price,
                trailing_stop=dict(trailing_stop_config)
                if isinstance(trailing_stop_config, Mapping)
                else trailing_stop_config,
                metadata=None if position_metadata is None else dict(position_metadata),
                command_id=command_id,
            )
            _require_binary(command.side)
            _require_margin(command, _Margin(available_margin=available_margin).available_margin)
            return self._row_of(self._ledger.execute(command))

    def update_position(
        self,
        position_id: str | int,
        current_price: Decimal | int | str,
        execution_environment: str | None = None,
        *,
        command_id: str | None = None,
    ) -> TableRow:
        """Value an open position at the price of the contract that it holds; answer the version that this made.

        The old version ends and a new one with a new ``id`` begins, also when the price is the same. The trailing stop
        moves, and ``exits_triggered`` names the exits that prices have touched; closing is up to the caller.

        Raises:
            ValueError: no such position ("not found"), it is not open, or a price outside [0, 1].
        """
        with _in_our_words(price="current_price"):
            command = MarkPosition(position_id=position_id, price=current_price, command_id=command_id)
            return self._row_of(self._ledger.execute(command, admit=self._admit(execution_environment)))

    def close_position(
        self,
        position_id: str | int,
        exit_price: Decimal | int | str,
        exit_reason: str,
        execution_environment: str | None = None,
        *,
        command_id: str | None = None,
    ) -> TableRow:
        """Leave all of an open position; answer its closed row with exit_price, realized_pnl and exit_reason.

        ``exit_reason``: profit_target, stop_loss, trailing_stop, market_close, manual, risk_limit, or any text.

        Raises:
            ValueError: as `update_position`; a second close is refused and the first stays as it is.
        """
        with _in_our_words(price="exit_price", reason="exit_reason"):
            command = ClosePosition(
                position_id=position_id, price=exit_price, reason=exit_reason, command_id=command_id
            )
            return self._row_of(self._ledger.execute(command, admit=self._admit(execution_environment)))

    def get_open_positions(
        self,
        market_id: str | None = None,
        strategy_id: int | None = None,
        execution_environment: str | None = None,
    ) -> list[TableRow]:
        """The current rows of what is open in one environment, the newest entry first.

        Each has, beside every column, its market's current ``ticker``, ``yes_price`` and ``no_price``: None if the
        market has no row.
        """
        with _in_our_words():
            environment = self._environment_of(execution_environment)
            asked = _Filters(market=market_id, strategy=strategy_id)
            self._ledger.catch_up()
            return self._ledger.open_positions(environment=environment, market=asked.market, strategy=asked.strategy)

    def calculate_position_pnl(
        self,
        entry_price: Decimal | int | str,
        current_price: Decimal | int | str,
        quantity: Decimal | int | str,
        side: str,
    ) -> Decimal:
        """``quantity * (current_price - entry_price)`` before fees, for YES and for NO: both prices are of its contract."""
        with _in_our_words():
            asked = _Valuation(
                entry_price=entry_price,
                current_price=current_price,
                quantity=quantity,
                side=side,
            )
            _require_binary(asked.side)
            for name in ("entry_price", "current_price"):
                _require_binary_price(name, getattr(asked, name), asked.side)
            cost = amount_of(asked.quantity, asked.entry_price)
            return unrealized(asked.side, asked.quantity, cost, asked.current_price)[0]

    # Trailing stops

    def initialize_trailing_stop(
        self,
        position_id: str | int,
        config: TrailingTerms | Mapping[str, Any],
        execution_environment: str | None = None,
    ) -> TableRow:
        """Put a trailing stop on an open position, from its current price on; answer the row with trailing_stop_state.

        ``config``: exactly one of trail_amount and trail_percent, and activation_price if it shall wait for that price.
        Target and stop stay as they are; all exits of the position are armed anew.
        """
        with _in_our_words():
            terms = dict(config) if isinstance(config, Mapping) else config
            for _ in range(EXITS_TRIES_MAX):
                row = self._current(position_id)
                kept = {name: row[name] for name in ("target_price", "stop_loss_price")}
                command = SetExits(position_id=position_id, trailing_stop=terms, **kept)
                try:
                    executed = self._ledger.execute(command, admit=self._admit(execution_environment, _keeps(kept)))
                except _ExitsChanged:
                    continue
                return self._row_of(executed)
        msg = f"the exits of position {position_id} were changed {EXITS_TRIES_MAX} times meanwhile; repeat it"
        raise ConcurrencyError(msg)

    def update_trailing_stop(
        self,
        position_id: str | int,
        current_price: Decimal | int | str,
        execution_environment: str | None = None,
    ) -> TableRow:
        """Do as `update_position`, on a position that has a trailing stop: it only ratchets towards better prices.

        Raises:
            ValueError: as `update_position`, or the position has no trailing stop.
        """
        with _in_our_words(price="current_price"):
            command = MarkPosition(position_id=position_id, price=current_price)
            admit = self._admit(execution_environment, _has_trailing_stop)
            return self._row_of(self._ledger.execute(command, admit=admit))

    def check_trailing_stop_trigger(self, position_id: str | int, execution_environment: str | None = None) -> bool:
        """Whether the current price of an open position touches its trailing stop. Changes nothing.

        Raises:
            ValueError: no such position, it is not open, or it has no trailing stop.
        """
        with _in_our_words():
            row = self._current(position_id)
            self._require_environment(execution_environment, Environment(row["execution_environment"]))
            if row["status"] != "open":
                raise CommandRejected(Reason.POSITION_NOT_OPEN, value=position_id, status=row["status"])
            if row["trailing_stop_state"] is None:
                raise _no_trailing_stop(position_id)
            state = TrailingState.model_validate(row["trailing_stop_state"])
            kinds = touched(Side(row["side"]), row["current_price"], None, state, None)
            return ExitKind.TRAILING_STOP in kinds

    # What they share

    def _row_of(self, executed: Executed) -> TableRow:
        """The version that a command made: of a fill that of its own event, else that of its last one."""
        self._ledger.wait_for(executed.token)
        if executed.trades:
            return self._ledger.version(int(executed.trades[0].removeprefix("TRD-")))
        if executed.events or executed.is_repeat:
            return self._ledger.version(executed.token)
        return self._ledger.position(executed.position_id or "")

    def _current(self, position_id: str | int) -> TableRow:
        """The current row of a position, with everything that was committed before."""
        self._ledger.catch_up()
        return self._ledger.position(position_id)

    def _environment_of(self, given: str | None) -> Environment:
        """The environment of a call. Refused: none at all, and another than that of the manager."""
        environment = self._environment if given is None else _environment(given)
        if environment is None:
            raise CommandRejected(Reason.FIELD_MISSING, PositionManager, field="execution_environment")
        if self._environment not in {None, environment}:
            raise _wrong_environment(environment, self._environment)
        return environment

    def _admit(self, given: str | None, *conditions: Any) -> Admit | None:
        """The condition that a position is of the environment of the call, if that was said, and further ones."""

        def admit(_place: int, command: Command, streams: Any) -> None:
            ref = getattr(command, "position_id")  # noqa: B009 - every command that is given here has it
            position: Position = streams.position(ref).position
            self._require_environment(given, position.environment)
            for condition in conditions:
                condition(ref, position)

        return admit if given or self._environment or conditions else None

    def _require_environment(self, given: str | None, held: Environment) -> None:
        """Refuse a position of another environment than the call or the manager says, if either says one."""
        if given is None and self._environment is None:
            return
        asked = self._environment_of(given)
        if asked is not held:
            raise _wrong_environment(asked, held)


class _Checked(BaseModel):
    """Arguments that are checked as those of a command."""

    model_config = ConfigDict(frozen=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise rejected(type(self), error) from None


class _Margin(_Checked):
    available_margin: Money


class _Valuation(_Checked):
    entry_price: Price
    current_price: Price
    quantity: Quantity
    side: Side


class _Filters(_Checked):
    market: Text | None
    strategy: RowId | None


class _NoTrailingStop(NotAdmitted, RequestRefused):
    """The position has no trailing stop; told only after its stream was read again."""


class _ExitsChanged(NotAdmitted):
    """Somebody else has set the exits since they were read."""


def _keeps(exits: Mapping[str, Decimal | None]) -> Any:
    """A condition: the other exits are still those that the command repeats."""

    def condition(_ref: object, position: Position) -> None:
        if position.is_open and any(getattr(position, name) != value for name, value in exits.items()):
            raise _ExitsChanged

    return condition


def _has_trailing_stop(ref: object, position: Position) -> None:
    if position.is_open and position.trailing_stop is None:
        raise _no_trailing_stop(ref)


def _no_trailing_stop(ref: object) -> _NoTrailingStop:
    return _NoTrailingStop(f"position {ref} has no trailing stop; initialize_trailing_stop gives it one")


def _wrong_environment(asked: Environment | None, held: Environment | None) -> CommandRejected:
    return CommandRejected(Reason.KEY_MISMATCH, PositionManager, field="execution_environment", value=asked, held=held)


def _environment(value: object) -> Environment:
    try:
        return Environment(value)  # type: ignore[arg-type]  # anything else is refused
    except ValueError:
        msg = f"execution_environment is {value!r}; it must be live, paper or backtest"
        raise RequestRefused(msg, Reason.ENVIRONMENT_UNKNOWN) from None


def _require_binary(side: Side) -> None:
    if not side.is_binary:
        msg = f"side is {side.value}; the manager trades binary markets, so it must be exactly YES or NO"
        raise RequestRefused(msg, Reason.SIDE_UNKNOWN)


def _require_binary_price(name: str, price: Decimal, side: Side) -> None:
    if price > 1:
        raise CommandRejected(Reason.PRICE_OUT_OF_RANGE, field=name, value=price, side=side.value)


def _require_margin(command: OpenPosition, available: Decimal) -> None:
    """Refuse what costs more than is available; a price that no contract can have is told first."""
    _require_binary_price("entry_price", command.entry_price, command.side)
    required = amount_of(command.quantity, command.entry_price)
    if required > available:
        msg = (
            f"opening {command.quantity} {command.side.value} at {command.entry_price} needs a margin of {required}, "
            f"but available_margin is {available}; lower the quantity or free margin"
        )
        raise InsufficientMarginError(msg)


@contextmanager
def _in_our_words(**renamed: str) -> Iterator[None]:
    """Turn the ledger's refusals into those of a manager, with the names of its arguments."""
    names = {**_OUR_NAMES, **renamed}
    try:
        yield
    except CommandRejected as refused:
        details = dict(refused.details)
        if "field" in details:
            root, dot, rest = str(details["field"]).partition(".")
            details["field"] = names.get(root, root) + dot + rest
        if isinstance(refused, FloatRefused):
            raise FloatRefused(refused.reason, PositionManager, **details) from refused
        sentence = str(CommandRejected(refused.reason, PositionManager, **details))
        if refused.reason is Reason.INSUFFICIENT_FUNDS:
            raise InsufficientMarginError(sentence) from refused
        raise RequestRefused(sentence, refused.reason) from refused
