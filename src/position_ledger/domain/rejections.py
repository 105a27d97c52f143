"""Every reason to refuse a command, in order of precedence: the first that applies is the one that is told.

A *final* reason stays true whatever happens later: repeating the same command cannot help. A *transient* one may
vanish when other commands have changed the ledger, so the same command may be sent again. Rejections append nothing
and are not remembered.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from position_ledger.domain.errors import LedgerError

__all__ = ["CommandRejected", "FloatRefused", "Reason", "shown"]

_SHOWN_CHARACTERS_MAX: Final = 120
_FINAL: Final = False
_TRANSIENT: Final = True


class Reason(Enum):
    """(code, transient?, sentence). The place in this class is the precedence."""

    # The command itself: decided by its fields alone, when it is constructed.
    FIELD_MISSING = ("field_missing", _FINAL, "{field} is missing; {command} cannot do without it")
    FIELD_UNKNOWN = ("field_unknown", _FINAL, "{field} is not a field of {command}; remove it or correct its name")
    FLOAT_NOT_ALLOWED = (
        "float_not_allowed",
        _FINAL,
        "{field} is the float {value}, which is not exact; give a Decimal, an int or a numeric string",
    )
    NOT_A_NUMBER = (
        "not_a_number",
        _FINAL,
        "{field} is {value}, not a finite number; give a Decimal, an int or a numeric string",
    )
    NUMBER_TOO_LARGE = (
        "number_too_large",
        _FINAL,
        "{field} is {value}, too large for the ledger; it must be below 1e20 in size",
    )
    QUANTITY_NOT_POSITIVE = (
        "quantity_not_positive",
        _FINAL,
        "{field} is {value} but must be greater than 0 after rounding to 18 places; the action says the direction",
    )
    NUMBER_NEGATIVE = ("number_negative", _FINAL, "{field} {value} is outside valid range: it must not be negative")
    PROBABILITY_OUT_OF_RANGE = (
        "probability_out_of_range",
        _FINAL,
        "{field} {value} is outside valid range [0, 1]; percent are divided by 100 first",
    )
    COUNT_INVALID = ("count_invalid", _FINAL, "{field} is {value}; it must be a whole number from 0 to 2147483647")
    SIDE_UNKNOWN = ("side_unknown", _FINAL, "{field} is {value}; it must be exactly YES, NO, LONG or SHORT")
    ACTION_UNKNOWN = ("action_unknown", _FINAL, "{field} is {value}; it must be buy or sell")
    ENVIRONMENT_UNKNOWN = ("environment_unknown", _FINAL, "{field} is {value}; it must be live, paper or backtest")
    TEXT_BLANK = ("text_blank", _FINAL, "{field} is blank; give it a value")
    TEXT_INVALID = (
        "text_invalid",
        _FINAL,
        "{field} is {value}; text must have at most 1000 characters and no NUL or lone surrogate",
    )
    TIME_INVALID = (
        "time_invalid",
        _FINAL,
        "{field} is {value}; give a datetime with a time zone, or its ISO 8601 text with an offset",
    )
    TRAILING_STOP_INVALID = (
        "trailing_stop_invalid",
        _FINAL,
        "trailing_stop is {value}; give exactly one of trail_amount > 0 and trail_percent, a fraction in (0, 1)",
    )
    METADATA_INVALID = (
        "metadata_invalid",
        _FINAL,
        "{field} cannot be kept as JSON: {problem}; use text, finite numbers, lists and objects",
    )
    FIELD_INVALID = ("field_invalid", _FINAL, "{field} is {value}: {problem}; correct it and send the command again")
    # Repeats: decided by what was recorded under the same id.
    COMMAND_ID_REUSED = (
        "command_id_reused",
        _FINAL,
        "command_id {value} was used before with other content; give the new command an id of its own",
    )
    FILL_ID_REUSED = (
        "fill_id_reused",
        _FINAL,
        "venue_fill_id {value} was recorded before with other content; correct the recorded trade instead",
    )
    CORRECTION_ID_REUSED = (
        "correction_id_reused",
        _FINAL,
        "{field} {value} was used before for this trade with other content; give the new correction an id of its own",
    )
    # The ledger as it is: decided by the streams the command addresses.
    REFERENCE_UNKNOWN = (
        "reference_unknown",
        _TRANSIENT,
        "{field} is {value}, which has no row in {table}; see: position-ledger reference list {table}",
    )
    EDGE_UNKNOWN = (
        "edge_unknown",
        _TRANSIENT,
        "edge {value} not found; name one that was detected in the same environment",
    )
    EDGE_IS_OTHER = (
        "edge_is_other",
        _FINAL,
        "{field} is {value} but the edge has {held}; leave it out or address the right edge",
    )
    EDGE_NOT_LIVE = ("edge_not_live", _FINAL, "edge {value} is {status}; its values do not change any more")
    EDGE_STATUS_INVALID = (
        "edge_status_invalid",
        _FINAL,
        "edge {value} is {status} and cannot become {wanted}; it goes detected, recommended, acted_on and ends once",
    )
    OUT_OF_ORDER = (
        "out_of_order",
        _FINAL,
        "effective_at {value} is before {held}, when it became {status}; a status follows the one before it in time",
    )
    POSITION_UNKNOWN = ("position_unknown", _TRANSIENT, "position {value} not found; see: position-ledger positions")
    MARKET_UNKNOWN = (
        "market_unknown",
        _TRANSIENT,
        "market {value} is not registered in {environment}; send RegisterMarket first",
    )
    MARKET_EXISTS = (
        "market_exists",
        _FINAL,
        "market {value} is registered with {field} {held}; ChangeMarket changes what positions do not depend on",
    )
    MARKET_STATUS_WRONG = (
        "market_status_wrong",
        _TRANSIENT,
        "market {value} is {status}, and {command} is not possible then; see the life of a market in the documentation",
    )
    MARKET_NOT_OPEN = (
        "market_not_open",
        _TRANSIENT,
        "market {value} is {status}, not open; a fill that has happened there is a RecordFill",
    )
    POSITION_NOT_OPEN = (
        "position_not_open",
        _FINAL,
        "position {value} is {status}, not open; nothing can be traded, marked or closed on it",
    )
    POSITION_NOT_SETTLED = (
        "position_not_settled",
        _TRANSIENT,
        "position {value} is {status} and was never settled or voided by its market; there is nothing to amend",
    )
    TRADE_UNKNOWN = ("trade_unknown", _TRANSIENT, "trade {value} not found; give TRD- and the number of its fill")
    FLIP_IS_ONE_TRADE = (
        "flip_is_one_trade",
        _FINAL,
        "trade {value} is one half of a flip: bust it whole, which busts both halves, and record what is right anew",
    )
    TRADE_BUSTED = (
        "trade_busted",
        _FINAL,
        "of trade {value} {held} contracts are busted; a correction must leave more than that",
    )
    BUST_EXCEEDS_REST = (
        "bust_exceeds_rest",
        _FINAL,
        "quantity {value} exceeds the {held} of the trade that are not busted yet; another bust may be recorded already",
    )
    KEY_MISMATCH = (
        "key_mismatch",
        _FINAL,
        "{field} is {value} but the position has {held}; leave it out or address the right position",
    )
    SIDE_NOT_IN_MARKET = (
        "side_not_in_market",
        _FINAL,
        "{field} is of side {value}, but market {market} is {kind}: binary has YES and NO, all others LONG and SHORT",
    )
    MARKET_CURRENCY = (
        "market_currency",
        _FINAL,
        "currency is {value} but market {market} is traded in {held}; state that one",
    )
    FEE_CURRENCY_UNSUPPORTED = (
        "fee_currency_unsupported",
        _FINAL,
        "fee_currency {value} is not the currency {held} of the position; say what one is worth in fee_rate",
    )
    FEE_TAKES_ALL = (
        "fee_takes_all",
        _FINAL,
        "fee {value} in the base asset takes all of the {held} contracts; correct the fee or the quantity",
    )
    ENTRY_PRICE_OUT_OF_RANGE = (
        "entry_price_out_of_range",
        _FINAL,
        "entry_price {value} is outside valid range {bounds}; an execution that has happened is a RecordFill",
    )
    PRICE_NOT_ON_TICK = (
        "price_not_on_tick",
        _FINAL,
        "{field} {value} is no multiple of the tick size {held} of the market; round it the way you mean",
    )
    PRICE_OUT_OF_RANGE = (
        "price_out_of_range",
        _FINAL,
        "{field} {value} is outside valid range [0, 1] of the binary side {side}; give the price of the contract held",
    )
    OUTCOME_DIFFERS = (
        "outcome_differs",
        _TRANSIENT,
        "value {value} is not the outcome {held} that the market was determined at; AmendMarket changes it",
    )
    TOO_LATE = (
        "too_late",
        _FINAL,
        "effective_at {value} is before the last fill at {held}; what ends a position comes after all its fills",
    )
    BEFORE_STATEMENT = (
        "before_statement",
        _FINAL,
        "effective_at {value} is before the position was stated as held at {held}, which contains it; else name it",
    )
    HANDED_ON = (
        "handed_on",
        _FINAL,
        "{value} or more positions hold what came of this one, and one command restates at most {held}; use AdjustCash",
    )
    QUANTITY_EXCEEDS_HELD = (
        "quantity_exceeds_held",
        _TRANSIENT,
        "quantity {value} exceeds the {held} held; reduce it, or allow a flip where it is meant",
    )
    CASH_KIND_NOT_RECORDED = (
        "cash_kind_not_recorded",
        _FINAL,
        "{field} {value} has a command of its own; RecordCash takes reward, rebate, funding, interest, dividend or fee",
    )
    BALANCE_ALREADY_SET = (
        "balance_already_set",
        _FINAL,
        "account {value} has its opening balance or a deposit already; use Deposit, Withdraw or AdjustCash",
    )
    TRANSFER_TO_ITSELF = (
        "transfer_to_itself",
        _FINAL,
        "{field} {value} holds the position already; name another account or another strategy",
    )
    SIDE_CANNOT_SPLIT = (
        "side_cannot_split",
        _FINAL,
        "{field} is {value}: a binary contract pays 1 and cannot be split; use SplitPair to make pairs of YES and NO",
    )
    NOT_A_PAIR = (
        "not_a_pair",
        _FINAL,
        "{field} is {value} where {held} is needed; a pair is YES and NO of one market in one account",
    )
    INSUFFICIENT_FUNDS = (
        "insufficient_funds",
        _TRANSIENT,
        "{value} is needed but only {held} is free in the account; deposit first, or ask for less",
    )
    FIGURE_TOO_LARGE = (
        "figure_too_large",
        _FINAL,
        "{field} would become {value}, too large for the ledger; split the trade over several positions",
    )

    def __init__(self, code: str, transient: bool, sentence: str) -> None:  # noqa: FBT001 - one row of the table
        """Name the parts of the row."""
        self.code = code
        self.transient = transient
        self.sentence = sentence

    @property
    def rank(self) -> int:
        """Place in the order of precedence; the smallest of several is told."""
        return _RANK[self]

    @classmethod
    def of(cls, code: str) -> Reason:
        """Find the reason of a code; KeyError if there is none."""
        return _BY_CODE[code]


_RANK: Final = {reason: rank for rank, reason in enumerate(Reason)}
_BY_CODE: Final = {reason.code: reason for reason in Reason}


class CommandRejected(LedgerError):
    """The command was refused and nothing was appended; ``reason`` says why, the message what to do."""

    def __init__(self, reason: Reason, command: object = None, **details: Any) -> None:
        """Build the sentence of ``reason`` from ``details``; values are shown shortened."""
        self.reason = reason
        self.command = command
        self.details = details
        shown_details = {name: shown(value) for name, value in details.items()}
        shown_details.setdefault("command", _name_of(command))
        super().__init__(reason.sentence.format(**shown_details))

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep reason and details across processes."""
        return _rebuild, (type(self), self.reason, self.command, self.details)


class FloatRefused(CommandRejected, TypeError):
    """A float where money is meant; also a TypeError, because the type is what is wrong with it."""


def _rebuild(kind: type[CommandRejected], reason: Reason, command: object, details: dict[str, Any]) -> CommandRejected:
    return kind(reason, command, **details)


def _name_of(command: object) -> str:
    return command.__name__ if isinstance(command, type) else type(command).__name__


def shown(value: object) -> str:
    """One short line for a message: plain text as it is, blank or odd text quoted, anything long cut."""
    try:
        text = str(value)
    except ValueError:  # an int with more digits than Python writes
        return "an endless number"
    if isinstance(value, str) and (not text.isprintable() or text != text.strip() or not text):
        text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[: _SHOWN_CHARACTERS_MAX - 1] + "…"
