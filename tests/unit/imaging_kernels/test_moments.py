"""Moments of many sources at once against their slow twin, which takes one source and sums pixel by pixel."""

import numpy as np
import pytest
from numpy.typing import NDArray

from astrid_workers.imaging import moments
from astrid_workers.imaging.moments import adaptive_moments

Floats = NDArray[np.float64]
RADIUS, SIGMA, ROUNDS, STRAYS = 9, 1.8, 25, 1.5 * 1.8 + 1


def crowded_image() -> tuple[NDArray[np.float32], Floats, Floats]:
    """Elongated Gaussians in noise, some of them over the edge of the image, and where they are."""
    rng = np.random.default_rng(5)
    yy, xx = np.mgrid[:180, :200]
    x, y = rng.uniform(-1, 200, 60), rng.uniform(-1, 180, 60)
    image = rng.normal(0, 1, (180, 200))
    for cx, cy, flux in zip(x, y, rng.uniform(50, 2000, 60), strict=True):
        dx, dy = xx - cx, yy - cy
        image += flux * np.exp(-0.5 * (dx**2 / 3.5 + dy**2 / 2.6 + 0.1 * dx * dy))
    return image.astype(np.float32), x + rng.normal(0, 0.3, 60), y + rng.normal(0, 0.3, 60)


def one_source(image: NDArray[np.float32], x: float, y: float) -> tuple[float, float, float, float] | None:
    """x, y, flux and FWHM, or None where the iteration does not settle."""
    left, bottom = int(np.rint(x)) - RADIUS, int(np.rint(y)) - RADIUS
    padded = np.pad(image.astype(np.float64), 2 * RADIUS + 2)
    top, start = bottom + 2 * RADIUS + 2, left + 2 * RADIUS + 2
    stamp = padded[top : top + 2 * RADIUS + 1, start : start + 2 * RADIUS + 1]
    rows, columns = np.mgrid[: 2 * RADIUS + 1, : 2 * RADIUS + 1]
    centre, covariance = np.array([x - left, y - bottom]), np.eye(2) * SIGMA**2
    for _ in range(ROUNDS):
        offsets = np.stack([columns - centre[0], rows - centre[1]])
        power = np.einsum("iyx,ij,jyx->yx", offsets, np.linalg.inv(covariance), offsets)
        weighted = np.exp(-0.5 * power) * stamp
        total = weighted.sum()
        mean = (offsets * weighted).sum(axis=(1, 2)) / total
        moments = np.einsum("iyx,jyx,yx->ij", offsets, offsets, weighted) / total - np.outer(mean, mean)
        sizes = 2 * np.diag(moments)
        if total <= 0 or sizes.min() <= 0.05 or sizes.max() >= (0.7 * RADIUS) ** 2:
            return None
        if np.linalg.det(moments) <= 0 or np.hypot(*mean) >= 2 * SIGMA + 1:
            return None
        if np.hypot(*(centre + 2 * mean - (x - left, y - bottom))) >= STRAYS:
            return None
        change = np.abs(sizes - np.diag(covariance)).sum()
        centre, covariance = centre + 2 * mean, 2 * moments
        if np.hypot(*mean) < 1e-3 and change < 2e-3 * np.trace(covariance):
            fwhm = 2.354820045 * np.linalg.det(covariance) ** 0.25
            return left + centre[0], bottom + centre[1], 2 * total, fwhm
    return None


def test_many_sources_agree_with_one_by_one() -> None:
    """At the same sources, to far below what a thousandth of a pixel means; sources at the edge as well."""
    image, x, y = crowded_image()
    found = adaptive_moments(image, x, y, np.full(x.size, SIGMA))
    assert np.count_nonzero(found.converged) > 30
    for i in range(x.size):
        slow = one_source(image, x[i], y[i])
        assert found.converged[i] == (slow is not None)
        if slow is not None:
            assert (found.x[i], found.y[i]) == pytest.approx(slow[:2], abs=2e-3)
            assert (found.flux[i], found.fwhm_px[i]) == pytest.approx(slow[2:], rel=2e-3)


def test_places_far_outside_measure_nothing() -> None:
    image, _, _ = crowded_image()
    found = adaptive_moments(image, np.array([-80.0, 300.0]), np.array([50.0, 400.0]), np.full(2, SIGMA))
    assert not found.converged.any()


def test_a_faint_source_stays_where_it_is_beside_a_bright_one() -> None:
    """Its weight would stray to the neighbour, and the source be gone from every list: it has no fit then."""
    yy, xx = np.mgrid[:60, :60]
    image = np.zeros((60, 60))
    for cx, flux in ((20.0, 100.0), (29.0, 2.0)):
        image += flux * np.exp(-0.5 * ((xx - cx) ** 2 + (yy - 30.0) ** 2) / SIGMA**2)
    found = adaptive_moments(
        image.astype(np.float32), np.array([20.0, 28.0]), np.full(2, 30.0), np.full(2, SIGMA)
    )
    assert found.converged[0]
    assert np.hypot(found.x[1] - 28.0, found.y[1] - 30.0) < STRAYS


def test_a_line_thinner_than_a_pixel_has_no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pixels that touch at a corner once gave this: next to no inverse, so that its weight may overflow."""
    seen = (
        1.0,
        0.0,
        0.0,
        0.24503404293720044,
        0.24503400750356935,
        0.2450340212064189,
    )
    monkeypatch.setattr(
        moments, "_central_moments", lambda _sums, cx, _cy: tuple(np.full(len(cx), one) for one in seen)
    )
    image = np.ones((41, 41), np.float32)
    found = adaptive_moments(image, *(np.array([value]) for value in (20.0, 20.0, 1.0)))
    assert not found.converged.any()
