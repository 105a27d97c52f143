"""Events to plain JSON and back, by topic and version, with upcasting.

Two readers of the same bytes: `Codec.decode` gives the validated pydantic event for the domain;
`Codec.decode_struct` gives a typed struct with the same field names for projecting, five times as fast.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec
from pydantic import AwareDatetime, BaseModel, ValidationError
from pydantic_core import PydanticUndefined
from typing_extensions import TypeAliasType

from position_ledger.domain.event import Event
from position_ledger.errors import ConfigurationError, SchemaMismatch

Path = tuple[str, ...]
"""Names of fields from a model to something inside it."""

VERSION_KEY = "class_version"
"""Where the version of an event's shape is stored, as in the library; absent means 1."""


class Codec:
    """Encodes and decodes the given events. Immutable after construction, safe for threads.

    ``as_text`` has paths of amounts, by topic, that `decode_struct` and `decode_structs` leave as they are written where
    they can: for who only hands them on, at a fifth of the cost of a decimal.
    """

    def __init__(self, events: Iterable[type[Event]], *, as_text: Mapping[str, frozenset[Path]] | None = None) -> None:
        self._by_topic: dict[str, type[Event]] = {}
        for event in events:
            self._add(event)
        self._structs = _StructDecoders(self._class_of, as_text or {})

    def _add(self, event: type[Event]) -> None:
        other = self._by_topic.get(event.TOPIC)
        if other is not None and other is not event:
            msg = f"topic {event.TOPIC!r} is claimed by {other.__name__} and {event.__name__}: topics are unique"
            raise ConfigurationError(msg)
        missing = set(range(1, event.VERSION)) - set(event.UPCASTERS)
        if missing:
            msg = f"event {event.__name__} is at version {event.VERSION} but has no upcaster from {sorted(missing)}"
            raise ConfigurationError(msg)
        self._by_topic[event.TOPIC] = event

    @property
    def topics(self) -> frozenset[str]:
        """Every topic this code can read."""
        return frozenset(self._by_topic)

    def event_type(self, topic: str) -> type[Event]:
        """The event type of a topic. Raises `SchemaMismatch` if this code does not know it."""
        return self._class_of(topic)

    def encode(self, event: Event) -> bytes:
        """UTF-8 JSON of the event without fields at their default: reading puts them back.

        Changing the default of a stored field therefore needs a new version and an upcaster.
        """
        state = type(event).__pydantic_serializer__.to_json(event, exclude_defaults=True)
        if event.VERSION == 1:
            return state
        separator = b"" if state == b"{}" else b","
        return b'{"%s":%d%s%s' % (VERSION_KEY.encode(), event.VERSION, separator, state[1:])

    def decode(self, topic: str, state: bytes) -> Event:
        """The validated event, upcast to the version of this code.

        Raises:
            SchemaMismatch: unknown topic, a version of newer code, or a body that does not fit its model.
        """
        cls = self._class_of(topic)
        try:
            if cls.VERSION == 1:
                return cls.model_validate_json(state)
            return cls.model_validate(_upcast(cls, state))
        except _MISFITS as error:
            raise _misfit(cls, state, error) from error

    def decode_struct(self, topic: str, state: bytes) -> Any:
        """The event as a struct with the fields of its model: what projecting reads.

        Raises:
            SchemaMismatch: as `decode`.
        """
        try:
            return self._structs[topic](state)
        except _MISFITS as error:
            raise _misfit(self._class_of(topic), state, error) from error

    def decode_structs(self, stored: Sequence[tuple[str, bytes]]) -> list[Any]:
        """Topics and bodies as `decode_struct` reads each.

        Raises:
            SchemaMismatch: as `decode`, for the first that does not fit.
        """
        structs = self._structs
        try:
            return [structs[topic](state) for topic, state in stored]
        except _MISFITS:
            return [self.decode_struct(topic, state) for topic, state in stored]

    def _class_of(self, topic: str) -> type[Event]:
        cls = self._by_topic.get(topic)
        if cls is None:
            msg = (
                f"the log has an event {topic!r} that this release does not know: it was written by newer code, update"
            )
            raise SchemaMismatch(msg)
        return cls


_MISFITS = (ValueError, msgspec.MsgspecError)
"""What reading a body raises that is not as its type says: pydantic's, msgspec's and Unicode's errors."""


class _StructDecoders(dict[str, Callable[[bytes], Any]]):
    """Decoders by topic, made when they are first asked for."""

    def __init__(self, class_of: Callable[[str], type[Event]], as_text: Mapping[str, frozenset[Path]]) -> None:
        self._class_of = class_of
        self._as_text = as_text

    def __missing__(self, topic: str) -> Callable[[bytes], Any]:
        event = self._class_of(topic)
        decoder = _struct_decoder(event, struct_of(event))
        if texts := self._as_text.get(topic):
            decoder = _first_of(_struct_decoder(event, struct_of(event, texts)), decoder)
        self[topic] = decoder
        return decoder


class _Versioned(msgspec.Struct):
    class_version: int = 1


def _misfit(cls: type[Event], state: bytes, error: Exception) -> SchemaMismatch:
    """Say why a stored body cannot be read: written by newer code, or damaged."""
    try:
        version = msgspec.json.decode(state, type=_Versioned).class_version
    except _MISFITS:
        version = 1
    if version > cls.VERSION:
        return SchemaMismatch(
            f"a stored {cls.TOPIC} event has version {version}, this release reads up to {cls.VERSION}: update"
        )
    problem = str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        problem = f"{first['msg']} in {first['loc']}"
    return SchemaMismatch(f"a stored {cls.TOPIC} event does not fit this release: {problem}")


def _upcast(cls: type[Event], state: bytes) -> dict[str, Any]:
    body = msgspec.json.decode(state, type=dict[str, Any])
    version = body.pop(VERSION_KEY, 1)
    while version < cls.VERSION:
        try:
            body = cls.UPCASTERS[version](body)
        except Exception as error:
            raise ValueError(f"its upcaster from version {version} raised {type(error).__name__}: {error}") from error
        version += 1
    if version > cls.VERSION:
        raise ValueError(f"version {version} is newer than {cls.VERSION}")
    return body


def _struct_decoder(cls: type[Event], struct: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    if cls.VERSION == 1:
        return msgspec.json.Decoder(struct).decode
    return lambda state: msgspec.convert(_upcast(cls, state), struct)


def _first_of(light: Callable[[bytes], Any], exact: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """The lighter decoder, and the exact one for a body that is not for it: a number where a text was expected."""

    def decode(state: bytes) -> Any:
        try:
            return light(state)
        except _MISFITS:
            return exact(state)

    return decode


@lru_cache(maxsize=256)
def struct_of(model: type[BaseModel], as_text: frozenset[Path] = frozenset()) -> type[msgspec.Struct]:
    """A frozen struct type with the fields, types and defaults of a pydantic model; nested models likewise.

    Amounts at the paths ``as_text`` are texts in it; their defaults stay.
    """
    required, optional = [], []
    for name, field in model.model_fields.items():
        annotation = _plain(field.annotation, frozenset(path[1:] for path in as_text if path[0] == name))
        if field.is_required():
            required.append((name, annotation))
        elif field.default is not PydanticUndefined:
            optional.append((name, annotation, field.default))
        else:
            factory = typing.cast("Callable[[], Any]", field.default_factory)
            optional.append((name, annotation, msgspec.field(default_factory=factory)))
    return msgspec.defstruct(
        model.__name__, [*required, *optional], frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
    )


def _plain(annotation: Any, as_text: frozenset[Path] = frozenset()) -> Any:
    """The annotation without pydantic's metadata, with nested models as structs, and with a text for an amount itself."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return struct_of(annotation, as_text)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _plain(arguments[0], as_text)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_plain(argument, as_text) for argument in arguments)]  # noqa: UP007 - built at run time
    if origin in (tuple, list, dict, frozenset, set):
        return origin[tuple(argument if argument is ... else _plain(argument) for argument in arguments)]
    return _leaf(annotation, is_text=() in as_text)


def _leaf(annotation: Any, *, is_text: bool) -> Any:
    if isinstance(annotation, TypeAliasType):
        return Any  # pydantic's JsonValue, which is recursive
    if annotation is Decimal and is_text:
        return str
    return datetime if annotation is AwareDatetime else annotation


def fields_of(model: type[BaseModel]) -> frozenset[Path]:
    """Paths of everything in a model, through the models in it; not through lists and the like."""
    return frozenset(path for path, _ in _fields(model))


def amounts_of(model: type[BaseModel]) -> frozenset[Path]:
    """Paths of the amounts in a model, as `fields_of`."""
    return frozenset(path for path, kind in _fields(model) if kind is Decimal)


def _fields(model: type[BaseModel]) -> Iterator[tuple[Path, Any]]:
    for name, field in model.model_fields.items():
        kind = _kind(field.annotation)
        yield (name,), kind
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from (((name, *path), inner) for path, inner in _fields(kind))


def _kind(annotation: Any) -> Any:
    """The one type of an annotation beside None and pydantic's metadata; None for a choice of several."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        kinds = [_kind(argument) for argument in arguments if argument is not type(None)]
        return kinds[0] if len(kinds) == 1 else None
    return annotation
