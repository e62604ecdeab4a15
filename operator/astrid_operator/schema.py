"""Reading a JSON document by a schema: types, bounds, defaults and unknown fields, each fault with its path.

Owns the kinds of field that an AstridQueue is made of, with the meaning that the API server gives to the
same schema. Knows no AstridQueue, and no rule between two fields (`rules.py` does).
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from astrid_operator.errors import InvalidSpec

Json = Any


class Kind(Protocol):
    """One kind of field."""

    def read(self, value: Json, path: str) -> Json:
        """`value` with defaults filled in, as a new document; raises InvalidSpec naming `path`."""

    def default_value(self) -> Json:
        """What an absent field becomes; None: it stays absent."""


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    default: bool | None = None

    def read(self, value: Json, path: str) -> Json:
        if not isinstance(value, bool):
            raise InvalidSpec(path, value, "must be true or false")
        return value

    def default_value(self) -> Json:
        return self.default


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number between two bounds, both included."""

    minimum: int
    maximum: int
    default: int | None = None

    def read(self, value: Json, path: str) -> Json:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidSpec(path, value, "must be a whole number")
        if not self.minimum <= value <= self.maximum:
            raise InvalidSpec(path, value, f"must be from {self.minimum} to {self.maximum}")
        return value

    def default_value(self) -> Json:
        return self.default


@dataclass(frozen=True, slots=True)
class Number:
    """A number between two bounds, both included."""

    minimum: float
    maximum: float

    def read(self, value: Json, path: str) -> Json:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidSpec(path, value, "must be a number")
        if not self.minimum <= value <= self.maximum:
            raise InvalidSpec(path, value, f"must be from {self.minimum:g} to {self.maximum:g}")
        return value

    def default_value(self) -> Json:
        return None


@dataclass(frozen=True, slots=True)
class Text:
    """A string: bounded, and of a form where `pattern` says so (matched whole)."""

    max_length: int
    min_length: int = 0
    pattern: str = ""
    default: str | None = None

    def read(self, value: Json, path: str) -> Json:
        if not isinstance(value, str):
            raise InvalidSpec(path, value, "must be a string")
        if not self.min_length <= len(value) <= self.max_length:
            raise InvalidSpec(path, value, f"must have {self.min_length} to {self.max_length} characters")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise InvalidSpec(path, value, f"must match {self.pattern}")
        return value

    def default_value(self) -> Json:
        return self.default


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]
    default: str | None = None

    def read(self, value: Json, path: str) -> Json:
        if not isinstance(value, str) or value not in self.words:
            raise InvalidSpec(path, value, f"must be one of {', '.join(self.words)}")
        return value

    def default_value(self) -> Json:
        return self.default


@dataclass(frozen=True, slots=True)
class WholeOrText:
    """A whole number between two bounds, or a string of a form: how Kubernetes writes a quantity."""

    minimum: int
    maximum: int
    pattern: str
    max_length: int

    def read(self, value: Json, path: str) -> Json:
        if isinstance(value, str):
            return Text(self.max_length, pattern=self.pattern).read(value, path)
        return Whole(self.minimum, self.maximum).read(value, path)

    def default_value(self) -> Json:
        return None


@dataclass(frozen=True, slots=True)
class Anything:
    """An object whose inside is not looked into; Kubernetes judges it where it is used."""

    max_properties: int

    def read(self, value: Json, path: str) -> Json:
        if not isinstance(value, Mapping):
            raise InvalidSpec(path, value, "must be an object")
        if len(value) > self.max_properties:
            raise InvalidSpec(path, len(value), f"must have at most {self.max_properties} fields")
        return value

    def default_value(self) -> Json:
        return None


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object of any keys whose values are all of one kind; one whose value is null is not there."""

    values: Kind
    max_properties: int

    def read(self, value: Json, path: str) -> Json:
        entries = Anything(self.max_properties).read(value, path)
        return {
            key: self.values.read(each, f"{path}[{key}]") for key, each in entries.items() if each is not None
        }

    def default_value(self) -> Json:
        return None


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of bounded length; where `keys` are named, no two items may agree in all of them."""

    items: Kind
    max_items: int
    keys: tuple[str, ...] = ()

    def read(self, value: Json, path: str) -> Json:
        if not isinstance(value, list | tuple):
            raise InvalidSpec(path, value, "must be a list")
        if len(value) > self.max_items:
            raise InvalidSpec(path, len(value), f"must have at most {self.max_items} items")
        items = [self.items.read(each, f"{path}[{index}]") for index, each in enumerate(value)]
        if self.keys:
            self._refuse_repeated(items, path)
        return items

    def default_value(self) -> Json:
        return None

    def _refuse_repeated(self, items: list[Json], path: str) -> None:
        seen: set[tuple[Json, ...]] = set()
        for index, item in enumerate(items):
            key = tuple(item.get(name) for name in self.keys)
            if key in seen:
                named = " and ".join(self.keys)
                raise InvalidSpec(f"{path}[{index}]", ", ".join(map(str, key)), f"must not repeat {named}")
            seen.add(key)


@dataclass(frozen=True, slots=True)
class Object:
    """An object of known fields. `optional`: stays absent where it is not given, else its defaults appear."""

    fields: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    optional: bool = True

    def read(self, value: Json, path: str) -> Json:
        if not isinstance(value, Mapping):
            raise InvalidSpec(path, value, "must be an object")
        self._refuse_unknown(value, path)
        read = {name: _field(value, name, kind, path) for name, kind in self.fields.items()}
        read = {name: each for name, each in read.items() if each is not None}
        for name in self.required:
            if name not in read:
                raise InvalidSpec(f"{path}.{name}", None, "must be given")
        return read

    def default_value(self) -> Json:
        return None if self.optional else self.read({}, "")

    def _refuse_unknown(self, value: Mapping[str, Json], path: str) -> None:
        for name in value:
            if name not in self.fields:
                near = difflib.get_close_matches(str(name), self.fields, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(self.fields)}"
                raise InvalidSpec(f"{path}.{name}", value[name], f"must not be there, no such field; {hint}")


def _field(value: Mapping[str, Json], name: str, kind: Kind, path: str) -> Json:
    """The field as read; its default where it is absent or null, which to the API server is the same."""
    given = value.get(name)
    return kind.default_value() if given is None else kind.read(given, f"{path}.{name}")
