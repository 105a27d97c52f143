"""Finding and checking mapping files of any kind: presets that ship with the package, and TOML files of one's own."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from position_ledger.domain.rejections import Reason, shown
from position_ledger.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["load", "parse", "presets"]

MappingT = TypeVar("MappingT", bound=BaseModel)

MAPPING_BYTES_MAX: Final = 1_000_000


def presets(folder: str = "") -> list[str]:
    """Names of the mapping files of one kind that ship with the package; the fills' are in the folder of presets itself."""
    return sorted(one.name.removesuffix(".toml") for one in _folder(folder).iterdir() if one.name.endswith(".toml"))


def load(source: str | Path, kind: type[MappingT], folder: str = "") -> MappingT:
    """Read a preset by its name, or a mapping file by its path, which ends in ``.toml``.

    ``kind`` is a model with a field ``name``; ``folder`` has its presets.

    Raises:
        ConfigurationError: there is none, or it cannot be used; names the key and its value.
    """
    if isinstance(source, str) and not source.endswith(".toml"):
        known = presets(folder)
        if source not in known:
            msg = f"mapping {source!r} is no preset ({', '.join(known)}); name one, or a file that ends in .toml"
            raise ConfigurationError(msg)
        return parse(source, (_folder(folder) / f"{source}.toml").read_text(encoding="utf-8"), kind)
    path = Path(source)
    try:
        if path.stat().st_size > MAPPING_BYTES_MAX:
            raise ConfigurationError(f"mapping {path} has more than {MAPPING_BYTES_MAX} bytes; is it a mapping file?")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"mapping {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"mapping {path} is not UTF-8 at byte {error.start}; TOML must be") from error
    return parse(path.name, text, kind)


def parse(name: str, text: str, kind: type[MappingT]) -> MappingT:
    """Check the text of a mapping file. Raises `ConfigurationError` with the first thing that is wrong."""
    try:
        content = tomllib.loads(text, parse_float=Decimal)
        return kind.model_validate({"name": name, **content})
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"mapping {name} is no TOML: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"mapping {name}: {_problem(error.errors(include_url=False)[0])}") from error


def _problem(details: ErrorDetails) -> str:
    key = ".".join(str(part) for part in details["loc"])
    said = details["msg"].removeprefix("Value error, ")
    with suppress(KeyError):
        sentence = Reason.of(details["type"]).sentence
        return sentence.format(field=key, value=shown(details["input"]), command="a mapping")
    if details["type"] == "missing":
        return f"{key} is missing"
    if details["type"] == "extra_forbidden":
        return f"{key} is no key of a mapping; remove it or correct its name"
    if isinstance(details["input"], dict | BaseModel):
        return f"{key}: {said}" if key else said
    return f"{key} cannot be {shown(details['input'])}: {said[:1].lower()}{said[1:]}"


def _folder(name: str) -> Any:
    place = files("position_ledger.importing") / "presets"
    return place / name if name else place
