"""How wrong wings are around bright sources: the largest that any sample of them tells."""

import numpy as np
import pytest

from astrid_workers.differencing.ring_error import RADII_FWHM, measure_ring_error

FWHM = 4.0
SIDE = 600
Places = tuple[np.ndarray, np.ndarray]


def rings(stars: Places, light: np.ndarray, share: float) -> np.ndarray:
    """White noise, and around each star `share` of its light at 1.75 FWHM, of either sign in turns."""
    rng = np.random.default_rng(8)
    statistic = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    axis = np.arange(-20, 21)
    radius, angle = np.hypot(axis[:, None], axis), np.arctan2(axis[:, None], axis)
    ring = np.where(np.abs(radius - 1.75 * FWHM) < 1, np.sign(np.sin(3 * angle + 0.1)), 0)
    for x, y, strength in zip(*stars, light, strict=True):
        statistic[int(y) - 20 : int(y) + 21, int(x) - 20 : int(x) + 21] += np.float32(share * strength) * ring
    return statistic


def places() -> Places:
    """Fourteen each way, well apart."""
    axis = np.arange(40.0, SIDE - 30, 40.0)
    x, y = np.meshgrid(axis, axis)
    return x.ravel(), y.ravel()


def measured(statistic: np.ndarray, *samples: tuple[Places, np.ndarray]) -> np.ndarray:
    none = np.zeros((SIDE, SIDE), bool)
    return measure_ring_error(statistic, np.ones_like(statistic), samples, none, FWHM).error


def test_the_strongest_tell_what_the_many_do_not() -> None:
    """0.15 % around eight stars of 2000 sigma is watered down by many of 80; a sample of their own has it."""
    stars, light = places(), np.full(196, 80.0)
    light[:8] = 2000.0
    statistic = rings(stars, light, 0.0015)
    strongest = ((stars[0][:8], stars[1][:8]), light[:8])
    at = RADII_FWHM.index(1.75)
    found = measured(statistic, (stars, light), strongest)
    assert measured(statistic, (stars, light))[at] < 0.75 * found[at]
    assert found[at] == pytest.approx(0.0015, rel=0.5)
    assert np.all(np.delete(found, at) < 0.0007)


def test_noise_has_no_wings_and_few_stars_tell_nothing() -> None:
    """Pure noise; seven stars whose rings are wrong."""
    stars, light = places(), np.full(196, 300.0)
    assert not measured(rings(stars, light, 0.0), (stars, light)).any()
    few = ((stars[0][:7], stars[1][:7]), light[:7])
    assert not measured(rings(stars, light, 0.02), few).any()


def test_what_is_wrong_at_the_edge_of_stamps_is_noise_there() -> None:
    """Stamps end at 4.5 FWHM: 0.2 % of stars of 3000 sigma that are left from there to 5 FWHM are told, and raise
    the noise by as much, which is 6 sigma.
    """
    stars, light = places(), np.full(196, 3000.0)
    statistic = np.random.default_rng(8).normal(size=(SIDE, SIDE)).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot((x - 40 + 20) % 40 - 20, (y - 40 + 20) % 40 - 20)  # of the nearest star
    statistic[np.abs(radius / FWHM - 4.75) < 0.35] -= np.float32(0.002 * 3000)
    one, none = np.ones_like(statistic), np.zeros(statistic.shape, bool)
    found = measure_ring_error(statistic, one, [(stars, light)], none, FWHM)
    added = found.around(statistic.shape, (stars[0][:1], stars[1][:1]), light[:1])
    at = round(stars[1][0]), round(stars[0][0] + 4.8 * FWHM)
    assert np.sqrt(added[at]) == pytest.approx(6.0, rel=0.5)
