"""Which environments a report is about: always said, never assumed, and never summed together."""

from __future__ import annotations

from collections.abc import Iterable

from position_ledger.domain.vocabulary import Environment
from position_ledger.errors import ConfigurationError

__all__ = ["environments_of"]


def environments_of(given: str | Iterable[str] | None) -> list[str]:
    """The environments that were named, each once.

    Raises:
        ConfigurationError: none was named, or one does not exist.
    """
    named = [given] if isinstance(given, str) else list(given or ())
    known = {environment.value for environment in Environment}
    wrong = next((name for name in named if name not in known), None)
    if wrong is not None:
        msg = f"environment is {wrong!r}; it must be live, paper or backtest"
        raise ConfigurationError(msg)
    if not named:
        msg = "environment is missing; a report says which of live, paper and backtest it is about"
        raise ConfigurationError(msg)
    return list(dict.fromkeys(str(name) for name in named))
