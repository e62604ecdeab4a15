"""Matching candidates with injected transients."""

import numpy as np
import pytest

from astrid_workers.demo.recovery import Found, match, summarise
from astrid_workers.sky import TRUTH_DTYPE


def _truth(*rows: tuple[float, float, int, float]) -> np.ndarray:
    truth = np.zeros(len(rows), TRUTH_DTYPE)
    for index, (x, y, sign, snr) in enumerate(rows):
        truth[index]["x"], truth[index]["y"], truth[index]["sign"], truth[index]["snr_local"] = (
            x,
            y,
            sign,
            snr,
        )
    return truth


@pytest.mark.parametrize(
    ("sentence", "found", "recovered", "n_false"),
    [
        ("nothing was found", [], [False], 0),
        ("one was found in place", [Found(10.5, 10, True, 9)], [True], 0),
        ("one was found too far away", [Found(14, 10, True, 9)], [False], 1),
        ("one was found with the wrong sign", [Found(10, 10, False, -9)], [False], 1),
        ("one was found twice", [Found(10, 10, True, 9), Found(11, 10, True, 6)], [True], 1),
    ],
)
def test_a_candidate_serves_one_transient_of_its_sign(
    sentence: str, found: list[Found], recovered: list[bool], n_false: int
) -> None:
    """Recovery counts a transient once, and what is left over as false."""
    matched = match(_truth((10, 10, 1, 12)), found, radius_px=3, area_mpix=0.5)

    assert (matched.recovered.tolist(), matched.n_false) == (recovered, n_false), sentence


def test_summary_divides_by_what_there_was() -> None:
    """Fractions come from the transients above S/N 10, false candidates from the area."""
    one = match(
        _truth((10, 10, 1, 12), (50, 50, -1, 6)), [Found(10, 10, True, 9)], radius_px=3, area_mpix=0.5
    )
    two = match(_truth((10, 10, 1, 30)), [Found(90, 90, True, 9)], radius_px=3, area_mpix=0.5)

    summary = summarise([one, two])

    assert (summary.injected, summary.recovered, summary.n_false) == (3, 1, 1)
    assert summary.above_snr10_fraction == 0.5
    assert summary.false_per_mpix == 1.0
    assert summary.by_snr == ((5.0, 7.0, 1, 0), (10.0, 15.0, 1, 1), (25.0, 50.0, 1, 0))


def test_nothing_measured_is_none() -> None:
    """Without observations there is no fraction and no rate."""
    summary = summarise([])

    assert (summary.above_snr10_fraction, summary.false_per_mpix) == (None, None)
