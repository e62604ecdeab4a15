"""What goes into a JSON column comes out as JSON."""

import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from astrid_workers.storage.column_types import UtcDateTime, plain_json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (np.float32("inf"), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([1.0, np.nan]), [1.0, None]),
        ({1: (np.int16(2), {"a": float("-inf")})}, {"1": [2, {"a": None}]}),
        (True, True),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    ],
)
def test_numbers_become_json_and_what_is_not_finite_becomes_null(value, expected):
    """PostgreSQL refuses NaN in JSON, and a number that was not measured is null."""
    plain = plain_json(value)
    assert plain == expected
    assert json.loads(json.dumps(plain, allow_nan=False)) == expected
    assert type(plain) is type(expected)


def test_what_json_cannot_hold_is_refused():
    """A mistake in a result is seen where it is made."""
    with pytest.raises(TypeError, match="object is not a JSON value"):
        plain_json({"a": object()})


def test_times_are_stored_in_utc_and_naive_ones_refused():
    """A time without a zone means something else on every machine."""
    column = UtcDateTime()
    at = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=5)))
    stored = column.process_bind_param(at, None)
    assert (stored, stored.utcoffset()) == (at, timedelta(0))
    assert column.process_result_value(stored.replace(tzinfo=None), None) == at
    with pytest.raises(ValueError, match="needs a zone"):
        column.process_bind_param(datetime(2026, 1, 2), None)  # noqa: DTZ001 - the mistake in question
