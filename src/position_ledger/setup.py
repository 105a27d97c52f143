"""Reaching the servers: the ones that the settings name, or the embedded ones."""

from __future__ import annotations

from dataclasses import dataclass

from position_ledger.embedded import EmbeddedServers
from position_ledger.settings import Settings


@dataclass(frozen=True, slots=True)
class Reached:
    """Where the servers answer. ``servers`` is None unless this process has joined embedded ones."""

    database_url: str
    redis_url: str
    servers: EmbeddedServers | None

    def close(self) -> None:
        """Leave the embedded servers, if any."""
        if self.servers is not None:
            self.servers.close()


def reach(settings: Settings) -> Reached:
    """Join or start the embedded servers for every URL that the settings leave out.

    Raises:
        DatabaseUnavailable, ConfigurationError: the embedded servers cannot be started; says why.
    """
    if settings.database_url is not None and settings.redis_url is not None:
        return Reached(settings.database_url, settings.redis_url, None)
    servers = EmbeddedServers.start(settings.home)
    return Reached(settings.database_url or servers.database_url, settings.redis_url or servers.redis_url, servers)
