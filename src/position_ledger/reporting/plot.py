"""Reports as pictures. Needs matplotlib, the extra «plot»; nothing else of the ledger does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from datetime import date
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from position_ledger.errors import ConfigurationError
from position_ledger.reading import TableRow

__all__ = ["plot_exposure", "plot_pnl"]

FORMATS: Final = (".png", ".svg", ".pdf")
BARS_MAX: Final = 30
"""Groups of one picture; the smaller ones are in the table."""
PANELS_MAX: Final = 12
"""Environments and currencies of one picture."""
WIDTH_INCHES: Final = 10.0
NAME_CHARACTERS_MAX: Final = 40
GAIN, LOSS, NEUTRAL = "#2a7f62", "#b5403a", "#4a6fa5"

_PANEL = itemgetter("execution_environment", "currency")


def plot_exposure(rows: Sequence[TableRow], column: str | None, file: Path) -> None:
    """Cost and value at the last marks of each group, a panel for each environment and currency.

    Raises:
        ConfigurationError: matplotlib is not installed, the file cannot be written, or there is nothing to draw.
    """

    def draw(axes: Any, part: Sequence[TableRow]) -> None:
        shown = list(reversed(part[:BARS_MAX]))
        names = ["all" if column is None else str(row[column] if row[column] is not None else "none") for row in shown]
        places = range(len(shown))
        axes.barh([place + 0.2 for place in places], _numbers(shown, "cost"), 0.4, label="cost", color=NEUTRAL)
        axes.barh(
            [place - 0.2 for place in places], _numbers(shown, "market_value"), 0.4, label="value at marks", color=GAIN
        )
        axes.set_yticks(list(places), [_shortened(name) for name in names])
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
        _legend(axes)
        if len(part) > BARS_MAX:
            axes.set_xlabel(f"the largest {BARS_MAX} of {len(part)}")

    _plot(rows, draw, file, lambda part: 1.5 + 0.35 * min(len(part), BARS_MAX))


def plot_pnl(rows: Sequence[TableRow], axis: str, zone: str, file: Path) -> None:
    """Realized P&L of each day and its running total, a panel for each environment and currency. Raises likewise."""

    def draw(axes: Any, part: Sequence[TableRow]) -> None:
        days: list[date] = [row["day"] for row in part]
        daily = _numbers(part, "realized_pnl")
        axes.bar(days, daily, color=[GAIN if value >= 0 else LOSS for value in daily], label=f"each {axis} day")
        axes.step(days, list(accumulate(daily)), where="post", color=NEUTRAL, label="running total")
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xlabel(f"{axis} day, {zone}")
        axes.tick_params(axis="x", rotation=30)
        _legend(axes)

    _plot(rows, draw, file, lambda _part: 3.5)


def _legend(axes: Any) -> None:
    """Beside the title, where it hides nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS_MAX else name[: NAME_CHARACTERS_MAX - 1] + "…"


def _numbers(rows: Sequence[TableRow], name: str) -> list[float]:
    """A column as a picture can show it: the only place where a figure becomes a float."""
    return [float(row[name]) for row in rows]


def _plot(
    rows: Sequence[TableRow],
    draw: Callable[[Any, Sequence[TableRow]], None],
    file: Path,
    height_inches: Callable[[Sequence[TableRow]], float],
) -> None:
    if file.suffix.lower() not in FORMATS:
        msg = f"--plot {file}: pictures are written as {', '.join(FORMATS)}; name the file so"
        raise ConfigurationError(msg)
    if not rows:
        msg = f"--plot {file}: there is nothing to draw, because the report is empty"
        raise ConfigurationError(msg)
    parts = [(key, list(part)) for key, part in groupby(sorted(rows, key=_PANEL), key=_PANEL)][:PANELS_MAX]
    heights = [height_inches(part) for _, part in parts]
    figure = _figure(sum(heights))
    panels = figure.subplots(len(parts), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, ((environment, currency), part) in zip(panels, parts, strict=True):
        draw(axes, part)
        axes.set_title(f"{environment}, {currency}", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks
            figure.savefig(file)
    except OSError as error:
        msg = f"--plot {file}: cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from error


def _figure(height_inches: float) -> Any:
    """A figure that needs no display."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to load
    except ImportError as error:
        msg = "--plot needs matplotlib, which is not installed: pip install 'position-ledger[plot]'"
        raise ConfigurationError(msg) from error
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained", dpi=120)
