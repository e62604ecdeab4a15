"""Column types that mean the same on SQLite and on PostgreSQL.

Owns how a time and a JSON value are stored; never names a table.
"""

import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, aware and in UTC on both sides of the border; a naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """UTC on the way in."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = f"a stored time needs a zone, got {value.isoformat()}"
            raise ValueError(msg)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """UTC on the way out; SQLite forgets the zone, PostgreSQL answers in the session's."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Text of any length; what no database can hold (NUL, half a surrogate pair) is replaced, not refused.

    For sentences and addresses that quote what others sent: failing to write down a failure would hide it.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Storable text on the way in."""
        if value is None:
            return None
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class PlainJson(TypeDecorator[Any]):
    """A JSON value; what is not finite becomes null, NumPy's numbers become numbers."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """Plain JSON on the way in."""
        return plain_json(value)


def plain_json(value: Any) -> Any:
    """`value` with only what JSON has.

    NaN and infinities become None, NumPy scalars and arrays numbers and lists, tuples lists, keys text, times
    ISO 8601.

    Raises TypeError for anything else that JSON cannot hold.
    """
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return _from_numpy(value)


def _from_numpy(value: Any) -> Any:
    listed = getattr(value, "tolist", None)
    if listed is None:
        msg = f"{type(value).__name__} is not a JSON value"
        raise TypeError(msg)
    return plain_json(listed())
