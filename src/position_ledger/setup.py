"""Reaching the servers: the ones that the settings name, or the embedded ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from position_ledger.embedded import EmbeddedServers
from position_ledger.errors import ConfigurationError

if TYPE_CHECKING:
    from position_ledger.settings import Settings

REDIS_SCHEMES = ("redis", "rediss", "unix")


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
        ConfigurationError: an address cannot be read, or the embedded servers cannot be used; says why.
        DatabaseUnavailable: the embedded servers cannot be started; says why.
    """
    check_addresses(settings)
    if settings.database_url is not None and settings.redis_url is not None:
        return Reached(settings.database_url, settings.redis_url, None)
    servers = EmbeddedServers.start(settings.home)
    return Reached(settings.database_url or servers.database_url, settings.redis_url or servers.redis_url, servers)


def check_addresses(settings: Settings) -> None:
    """Refuse what is no address at all. Never shows a password. Raises `ConfigurationError`."""
    if settings.database_url is not None and not _is_database_address(settings.database_url):
        msg = (
            f"setting database_url cannot be {masked(settings.database_url)!r}: give an address such as "
            "postgresql://user@host:5432/database"
        )
        raise ConfigurationError(msg)
    if settings.redis_url is not None and not _is_redis_address(settings.redis_url):
        msg = (
            f"setting redis_url cannot be {masked(settings.redis_url)!r}: give an address such as redis://host:6379/0 "
            "or unix:///path/to/socket"
        )
        raise ConfigurationError(msg)


def _is_database_address(url: str) -> bool:
    try:
        return bool(conninfo_to_dict(url))
    except (psycopg.Error, ValueError):
        return False


def _is_redis_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in REDIS_SCHEMES and bool(parts.port or parts.hostname or parts.path)
    except ValueError:
        return False


def masked(url: str) -> str:
    """An address without its passwords, for people to read."""
    hidden = re.sub(r"(://[^:/?#@]*:).*@", r"\1***@", url)
    return re.sub(
        r"((?:password|sslpassword)\s*=\s*)('(?:[^'\\]|\\.)*'|[^&\s]*)", r"\1***", hidden, flags=re.IGNORECASE
    )
