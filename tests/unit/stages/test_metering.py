"""What work costs."""

import pytest

from astrid_workers.metering import metered


def test_a_block_is_measured():
    """Seconds, CPU and peak memory are there afterwards, and plausible."""
    with metered() as cost:
        sum(range(200_000))

    assert 0 < cost.seconds < 60
    assert cost.cpu_percent > 0
    assert 5 < cost.peak_rss_mb < 100_000


def test_a_block_that_fails_is_measured_too():
    """The cost of a failure is known."""
    with pytest.raises(ValueError, match="no"), metered() as cost:
        raise ValueError("no")

    assert cost.seconds is not None
