"""The operator may not import Dramatiq, but simulates its retries: by the same rule."""

import random

import pytest
from dramatiq import common

from astrid_operator.simulation_failures import retry_delay_ms


@pytest.mark.parametrize(
    ("least_ms", "most_ms"), [(1000, 300_000), (0, 1000), (15_000, 604_800_000), (86_400_000, 86_400_000)]
)
def test_a_retry_is_due_when_dramatiq_has_it_due(
    least_ms: int, most_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same draws give the same delay after any number of retries, to the millisecond."""
    theirs, ours = random.Random(7), random.Random(7)
    monkeypatch.setattr(common, "uniform", theirs.uniform)

    for retries in [*range(40), 1000] * 5:
        expected = common.compute_backoff(retries, factor=least_ms, max_backoff=most_ms)[1]
        assert retry_delay_ms(retries, least_ms, most_ms, ours) == expected
