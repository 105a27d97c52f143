"""All settings of the ledger: keyword arguments, the environment (prefix ``POSITION_LEDGER_``), then the file ``.env``."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from position_ledger.errors import ConfigurationError
from position_ledger.packages import absolute

PREFIX = "POSITION_LEDGER_"
SETTINGS_FILE = ".env"
"""Read from the working directory; variables of the environment win."""

Consistency = Literal["eventual", "strong"]
BackupPolicy = Literal["warn", "refuse", "off"]


class Settings(BaseSettings):
    """Where the ledger runs and within which limits.

    ``database_url`` and ``redis_url`` unset means: the embedded servers under ``home``. Times are seconds.
    ``projections``, ``migrations`` and ``workers`` are dotted names of packages, or folders, whose paths become absolute.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=SETTINGS_FILE, extra="forbid", populate_by_name=True, frozen=True
    )

    database_url: str | None = None
    redis_url: str | None = None
    home: Path | None = None
    ledger_schema: str = Field(default="ledger", validation_alias="POSITION_LEDGER_SCHEMA")
    projections: str = "position_ledger.reference.projections"
    migrations: str = "position_ledger.reference.migrations"
    workers: str = "position_ledger.reference.workers"
    scratch_url: str | None = None
    read_only: bool = False
    """Only read: the database may be a standby, commands are refused, and nothing is projected by who waits."""
    code: str | None = None
    """More folders of Python whose SQL `check` describes, separated as in PATH."""

    incidents: Path = Path("incidents")
    """The folder of the notes that a rollback writes."""
    backup_policy: BackupPolicy = "warn"
    """What `migrate up` does without a recent backup: warn, refuse, or off for not looking."""
    backup_max_age_h: float = Field(default=24.0, gt=0)
    backup_command: str | None = None
    """Exits with 0 if there is a backup; a time in ISO 8601 with an offset, if it prints one, is that of the backup."""
    retired_kept_hours: float = Field(default=72.0, ge=0, le=87_600)
    """How long a swap leaves the table of before for a rollback; 0: not at all. Written down when it retires."""

    consistency: Consistency = "eventual"
    wait_timeout_s: float = Field(default=5.0, gt=0)
    pool_size_max: int = Field(default=8, ge=1, le=100)
    connect_timeout_s: float = Field(default=10.0, gt=0)
    statement_timeout_s: float = Field(default=30.0, gt=0)
    streams_cached_max: int = Field(default=20_000, ge=1)
    conflict_retries_max: int = Field(default=100, ge=0)
    settling_poll_s: float = Field(default=1.0, ge=0.05, le=3600)
    """How often workers look for positions of decided markets that are not paid yet."""
    settling_batch_max: int = Field(default=100, ge=1, le=200)
    """Positions that are paid in one append."""
    audit_events_per_s: int = Field(default=500, ge=0, le=100_000)
    """Events a second that workers, all together, fold again to compare the tables with the log; 0: none."""
    rebuild_lag_max_s: float = Field(default=1.0, ge=0)
    """Above this lag of a live table or a replica a rebuild stands back until it has fallen; 0: it never does, nor
    rests while commands append."""
    rebuild_leaves_text: bool = True
    """Whether a load leaves the amounts that folds only hand on as the texts that they are in the log."""
    quote_min_change: Decimal = Field(default=Decimal(0), ge=0)
    """Quotes that all differ by less than this from the last recorded ones change nothing, unless a command says so."""

    @field_validator("ledger_schema")
    @classmethod
    def _plain_identifier(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,39}", value):
            msg = "a schema name is 1 to 40 lower-case letters, digits or underscores and does not start with a digit"
            raise ValueError(msg)
        return value

    @field_validator("projections", "migrations", "workers")
    @classmethod
    def _folder_wherever_we_are(cls, value: str) -> str:
        return absolute(value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - ours reads the same file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there are none
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keyword arguments win over the environment, and that over the file."""
        return init_settings, env_settings, _OwnVariables(settings_cls)


class _OwnVariables(DotEnvSettingsSource):
    """The ledger's variables of the file: other programs may keep theirs there, a mistyped one of ours is refused."""

    def __call__(self) -> dict[str, Any]:
        fields = self.settings_cls.model_fields
        known = {*fields, *(field.validation_alias for field in fields.values())}
        found = super().__call__()
        return {name: one for name, one in found.items() if name in known or name.upper().startswith(PREFIX)}


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment and the file .env, overridden by the keyword arguments that are not None.

    Raises:
        ConfigurationError: a setting is unknown or out of range; names it and its value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            variable = name.upper().startswith(PREFIX)
            place = f" (in {Path(SETTINGS_FILE).absolute()})" if variable else ""
            msg = f"{name.upper() if variable else name}{place} is no setting: there are {', '.join(Settings.model_fields)}"
            raise ConfigurationError(msg) from error
        msg = f"setting {name} cannot be {first.get('input')!r}: {first['msg']}"
        raise ConfigurationError(msg) from error
