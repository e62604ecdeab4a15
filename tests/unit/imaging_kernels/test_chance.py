"""The tail of a Poisson distribution is that of scipy.stats, which costs too much to import."""

import numpy as np
import pytest
from scipy.stats import poisson

from astrid_workers.imaging.chance import log_poisson_tail


@pytest.mark.parametrize("count", [-3, -1, 0, 1, 2, 7, 40, 400])
@pytest.mark.parametrize("expected", [1e-6, 0.03, 1.0, 12.0, 350.0])
def test_as_the_twin_says(count: int, expected: float) -> None:
    with np.errstate(divide="ignore"):
        assert log_poisson_tail(count, expected) == pytest.approx(float(poisson.logsf(count, expected)))
