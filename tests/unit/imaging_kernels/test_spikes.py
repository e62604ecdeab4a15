"""Spikes of stars against rays of known angle and length, and what is no spike."""

import numpy as np
import pytest
from numpy.typing import NDArray

from astrid_workers.imaging.spikes import ANGLES, RING_PX, _as_wide_as_a_spike, _median_of_known, find_spikes
from astrid_workers.imaging.streaks import Streak

SHAPE, PLACE, RADIUS_PX, FWHM, SIGMA = (360, 380), (190.3, 171.8), 7.0, 3.0, 5.0


def sky(seed: int = 1) -> NDArray:
    """White noise."""
    return np.random.default_rng(seed).normal(0, SIGMA, SHAPE).astype(np.float32)


def ray(degrees: float, height: float, length_px: float) -> NDArray:
    """A ray from the star, a Gaussian across and fading along, `height` sigma high where it begins."""
    rows, columns = np.indices(SHAPE)
    dx, dy = columns - PLACE[0], rows - PLACE[1]
    ux, uy = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    along, across = dx * ux + dy * uy, dy * ux - dx * uy
    lit = (along > 0) & (along < length_px)
    profile = np.exp(-np.clip(along, 0, None) / length_px) * np.exp(-0.5 * (across / 1.2) ** 2)
    return (height * SIGMA * lit * profile).astype(np.float32)


def found(image: NDArray, usable: NDArray | None = None) -> list[Streak]:
    """Of a star whose core is masked."""
    rows, columns = np.indices(SHAPE)
    asked = np.hypot(columns - PLACE[0], rows - PLACE[1]) > RADIUS_PX + FWHM
    if usable is not None:
        asked &= usable
    return find_spikes(image, np.full(SHAPE, SIGMA**2, np.float32), asked, PLACE, RADIUS_PX, FWHM)


def angle(streak: Streak) -> float:
    """Degrees from the x axis to the y axis."""
    return float(np.degrees(np.arctan2(streak.y1 - streak.y0, streak.x1 - streak.x0)))


@pytest.mark.parametrize(
    "arms", [(20.0, 200.0), (0.0, 90.0, 180.0, 270.0), tuple(30.0 + 60 * k for k in range(6))]
)
@pytest.mark.parametrize("height", [2.0, 12.0])
def test_each_ray_is_found_at_its_angle_and_to_its_end(arms: tuple[float, ...], height: float) -> None:
    """Faint and bright, two, four or six of them; nothing else."""
    image = sky() + sum(ray(each, height, 90.0) for each in arms)
    spikes = found(image)
    assert len(spikes) == len(arms)
    for arm in arms:
        off = [abs((angle(each) - arm + 180) % 360 - 180) for each in spikes]
        assert min(off) <= 3.0
        own = spikes[int(np.argmin(off))]
        reach = np.hypot(own.x1 - PLACE[0], own.y1 - PLACE[1])
        assert 55 <= reach <= 110


def test_without_spikes_hardly_any_is_found() -> None:
    """White noise: none on sixty stars."""
    assert [found(sky(seed)) for seed in range(60)] == [[]] * 60


def test_a_ray_to_one_side_is_no_spike() -> None:
    """A row of faint sources or the edge of a galaxy; what the supports of a mirror draw goes both ways."""
    assert found(sky() + ray(35.0, 6.0, 90.0)) == []


def test_sources_around_a_star_are_no_spikes() -> None:
    """Forty stars and two wide galaxies, opposite each other."""
    rng = np.random.default_rng(7)
    rows, columns = np.indices(SHAPE)
    image = sky()
    places = [
        (x, y, 1.4, 60.0) for x, y in zip(rng.uniform(0, 380, 40), rng.uniform(0, 360, 40), strict=True)
    ]
    for x, y, width, height in [*places, (250.0, 171.0, 9.0, 8.0), (130.0, 172.0, 9.0, 8.0)]:
        image += (height * SIGMA * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))).astype(
            np.float32
        )
    assert found(image) == []


def test_a_star_at_the_frames_edge_is_looked_at_as_far_as_it_goes() -> None:
    """Rays that leave the frame, and pixels that may not be asked, are no reason to fail."""
    image = sky() + ray(0.0, 6.0, 300.0) + ray(180.0, 6.0, 300.0)
    usable = np.ones(SHAPE, bool)
    usable[:, 200:215] = False
    assert len(found(image, usable)) == 2
    corner = find_spikes(image, np.full(SHAPE, SIGMA**2, np.float32), usable, (0.0, 0.0), RADIUS_PX, FWHM)
    assert corner == []
    none = find_spikes(image, np.full(SHAPE, SIGMA**2, np.float32), usable, PLACE, 150.0, FWHM)
    assert none == []


def test_means_and_medians_of_rings_agree_with_their_slow_twins() -> None:
    """Rings with gaps against shifted copies, place by place, and against a median that looks for NaN."""
    rng = np.random.default_rng(3)
    rings = np.where(rng.random((ANGLES, 20)) < 0.3, np.nan, rng.normal(0, 1, (ANGLES, 20)))
    rings[20:60, 4] = np.nan
    for first, fwhm in ((1, 2.0), (3, 5.5)):
        fast = _as_wide_as_a_spike(rings, first, fwhm)
        for number in range(rings.shape[1]):
            half = int(fwhm * ANGLES / (2 * np.pi * (first + number + 0.5) * RING_PX) / 2)
            around = np.stack([np.roll(rings[:, number], shift) for shift in range(-half, half + 1)])
            count = np.isfinite(around).sum(axis=0)
            mean = np.nansum(around, axis=0) / np.maximum(count, 1)
            np.testing.assert_allclose(fast[:, number], np.where(count > half, mean, np.nan), atol=1e-12)
    np.testing.assert_array_equal(_median_of_known(rings), np.nanmedian(rings, axis=0))
