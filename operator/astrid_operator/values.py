"""Values that never change, and are quick to make.

Owns one way to write a class of them. A dozen are made for each decision, of which a simulated night has
millions: a frozen dataclass takes two to six times as long to make as a plain one, field by field, only to
refuse at run time what the type checker has refused before.
"""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots whose fields nobody may set: mypy says so where somebody does.

    Hashed by its fields, as they never change.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
