"""Spikes in a score against rays of known angle, length and sign, and what is no spike."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.imaging import spikes
from astrid_workers.imaging.rays import ANGLES
from astrid_workers.imaging.spikes import find_spikes
from astrid_workers.imaging.streaks import Streak

SHAPE, PLACE, RADIUS_PX, FWHM = (360, 380), (190.3, 171.8), 7.0, 3.0
#: Of the score: that of a point source filtered with the PSF.
SIGMA_PX = FWHM / 2.355 * np.sqrt(2)


def sky(seed: int = 1) -> NDArray:
    """Noise as a score has it: scatter one, correlated over the PSF."""
    white = np.random.default_rng(seed).normal(size=SHAPE)
    noise = ndimage.gaussian_filter(white, FWHM / 2.355)
    return (noise / noise.std()).astype(np.float32)


def ray(degrees: float, height: float, length_px: float, place: tuple[float, float] = PLACE) -> NDArray:
    """A ray from a star, fading along, `height` sigma high where it begins."""
    rows, columns = np.indices(SHAPE)
    dx, dy = columns - place[0], rows - place[1]
    ux, uy = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    along, across = dx * ux + dy * uy, dy * ux - dx * uy
    lit = (along > 0) & (along < length_px)
    profile = np.exp(-np.clip(along, 0, None) / length_px) * np.exp(-0.5 * (across / SIGMA_PX) ** 2)
    return (height * lit * profile).astype(np.float32)


def source(x: float, y: float, height: float) -> NDArray:
    """A point of so many sigma."""
    rows, columns = np.indices(SHAPE)
    return (height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA_PX**2))).astype(np.float32)


def found(
    score: NDArray, *places: tuple[float, float], radius_px: float = 0.0, usable: NDArray | None = None
) -> list[Streak]:
    """Of stars of one size."""
    stars = np.array([(x, y, radius_px) for x, y in places or (PLACE,)])
    return find_spikes(score, np.ones(SHAPE, bool) if usable is None else usable, stars, FWHM)


def angle(streak: Streak) -> float:
    """Degrees from the x axis to the y axis."""
    return float(np.degrees(np.arctan2(streak.y1 - streak.y0, streak.x1 - streak.x0)))


@pytest.mark.parametrize(
    "arms", [(20.0, 200.0), (0.0, 90.0, 180.0, 270.0), tuple(30.0 + 60 * k for k in range(6))]
)
@pytest.mark.parametrize(("height", "sign", "radius_px"), [(6.0, 1, 7.0), (15.0, 1, 0.0), (8.0, -1, 0.0)])
def test_each_ray_is_found_at_its_angle_and_to_its_end(
    arms: tuple[float, ...], height: float, sign: int, radius_px: float
) -> None:
    """Faint and bright ones, those of the other frame, of stars that clip and that do not; nothing else."""
    score = sky() + sign * sum(ray(each, height, 60.0) for each in arms)
    rays = found(score, radius_px=radius_px)
    assert len(rays) == len(arms)
    assert all(np.sign(each.height_sigma) == sign for each in rays)
    for arm in arms:
        off = [abs((angle(each) - arm + 180) % 360 - 180) for each in rays]
        assert min(off) <= 5.0
        own = rays[int(np.argmin(off))]
        assert 40 <= np.hypot(own.x1 - PLACE[0], own.y1 - PLACE[1]) <= 72


def test_without_spikes_none_is_found() -> None:
    """Noise: none on 400 places of 20 frames."""
    places = [(x, y) for x in range(40, 360, 70) for y in range(40, 330, 80)]
    assert [found(sky(seed), *places) for seed in range(20)] == [[]] * 20


def test_a_ray_to_one_side_is_no_spike() -> None:
    """A row of faint sources or the edge of a galaxy; what the supports of a mirror draw goes both ways."""
    assert found(sky() + ray(35.0, 6.0, 90.0)) == []


def test_sources_around_a_star_are_no_spikes() -> None:
    """Forty of both signs, and a strong one beside the star."""
    rng = np.random.default_rng(7)
    score = sky() + source(PLACE[0] + 10, PLACE[1] + 4, 300.0)
    for x, y, height in zip(
        rng.uniform(0, 380, 40), rng.uniform(0, 360, 40), rng.uniform(-60, 60, 40), strict=True
    ):
        score += source(x, y, height)
    assert found(score) == []


@pytest.mark.parametrize("distance_fwhm", [2.5, 3.0, 3.5, 4.0, 4.5, 5.0])
@pytest.mark.parametrize("height", [15.0, 25.0, 40.0, 100.0])
def test_two_transients_on_either_side_of_a_star_are_no_spikes(distance_fwhm: float, height: float) -> None:
    """As sure as any ray, and as far on one side as on the other."""
    for degrees in (0.0, 33.0, 71.0):
        score = sky(int(degrees))
        for side, share in ((0.0, 1.0), (180.0, 0.8)):
            turn = np.radians(degrees + side)
            away = distance_fwhm * FWHM * (0.85 if side else 1.0)
            score += source(PLACE[0] + away * np.cos(turn), PLACE[1] + away * np.sin(turn), share * height)
        assert found(score) == []


def test_a_source_beyond_its_end_makes_no_ray_longer() -> None:
    """A bright transient in line with a ray is not on it, where rings between them are dark."""
    score = sky() + ray(0.0, 15.0, 40.0) + ray(180.0, 15.0, 40.0)
    beyond = score + source(PLACE[0] + 60, PLACE[1], 200.0)
    assert max(each.x1 for each in found(beyond)) < PLACE[0] + 50


def test_a_profile_that_errs_is_no_spike() -> None:
    """Rings about the star and an ellipse across it, as a PSF leaves them that is too narrow or round."""
    rows, columns = np.indices(SHAPE)
    dx, dy = columns - PLACE[0], rows - PLACE[1]
    radius = np.hypot(dx, dy)
    rings = 8 * np.cos(radius / 2) * np.exp(-radius / 15)
    ellipse = 4 * np.cos(2 * np.arctan2(dy, dx)) * np.exp(-((radius / 9) ** 2))
    assert found((sky() + rings + ellipse).astype(np.float32)) == []


def test_faint_rays_that_many_stars_share_are_believed() -> None:
    """None of 20 stars has a ray that is believed by itself; supports are the same for all of them."""
    places = [(x + 0.4, y - 0.3) for x in range(40, 360, 70) for y in range(40, 330, 80)]
    shared, own = sky(3), sky(3)
    for number, place in enumerate(places):
        for arm in (15.0, 195.0):
            shared += ray(arm, 5.0, 20.0, place)
            own += ray(arm + 50.0 * number, 5.0, 20.0, place)
    assert found(own, *places) == []
    rays = found(shared, *places)
    assert len(rays) >= 24
    assert all(min(abs(angle(each) - 15), abs(angle(each) + 165)) < 10 for each in rays)


def test_both_frames_have_a_pattern_of_their_own() -> None:
    """The second one was turned by 30 degrees."""
    score = (
        sky() + ray(10.0, 7.0, 50.0) + ray(190.0, 7.0, 50.0) - ray(40.0, 7.0, 50.0) - ray(220.0, 7.0, 50.0)
    )
    rays = found(score)
    bright = sorted(angle(each) % 180 for each in rays if each.height_sigma > 0)
    dark = sorted(angle(each) % 180 for each in rays if each.height_sigma < 0)
    np.testing.assert_allclose(bright, [10, 10], atol=3)
    np.testing.assert_allclose(dark, [40, 40], atol=3)


def test_a_ray_whose_other_side_is_cut_off_is_believed_at_an_angle_of_the_pattern() -> None:
    """Stars at the edge and beside pixels that may not be asked: faint rays where another star has the pair."""
    at_edge, beside_hole, whole = (3.0, 60.0), (200.0, 300.0), (190.0, 170.0)
    usable = np.ones(SHAPE, bool)
    usable[280:320, 180:196] = False
    alone = sky(5) + ray(0.0, 6.0, 40.0, at_edge) + ray(0.0, 5.0, 40.0, beside_hole)
    both = alone + ray(0.0, 5.0, 40.0, whole) + ray(180.0, 5.0, 40.0, whole)
    stars = (at_edge, beside_hole, whole)
    assert found(alone, *stars, usable=usable) == []
    rays = found(both, *stars, usable=usable)
    assert sorted(round(each.y0 / 10) for each in rays) == [6, 17, 17, 30]


def test_a_ray_whose_other_side_is_cut_off_is_believed_if_it_is_strong() -> None:
    """By itself; a bright transient beside a star at the edge is no ray."""
    at_edge = (3.0, 171.0)
    rays = found(sky() + ray(0.0, 12.0, 70.0, at_edge), at_edge)
    assert [round(angle(each) / 5) for each in rays] == [0]
    assert found(sky() + source(16.0, 171.0, 300.0), at_edge) == []


def test_what_cannot_be_asked_is_no_reason_to_fail() -> None:
    """No star, stars in a corner and beyond the frame, and nothing that is usable."""
    score = sky()
    assert find_spikes(score, np.ones(SHAPE, bool), np.empty((0, 3)), FWHM) == []
    assert found(score, (0.0, 0.0), (-30.0, 500.0), (379.0, 359.0)) == []
    assert found(score, usable=np.zeros(SHAPE, bool)) == []
    assert found(score, radius_px=400.0) == []


def test_rays_do_not_depend_on_how_many_stars_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three stars, one by one and all at once."""
    places = [(60.0, 60.0), (190.0, 170.0), (300.0, 300.0)]
    score = sky() + sum(ray(arm, 6.0, 50.0, place) for place in places for arm in (70.0, 250.0))
    together = found(score, *places)
    monkeypatch.setattr(spikes, "TOGETHER", 1)
    assert found(score, *places) == together
    assert len(together) == 6


def explained_by_a_point(pulls: NDArray, ring: int, k: int) -> bool:
    """Hardly anything to be seen but at the brightest ring of the angles near by, and beside it."""
    run = np.nan_to_num(pulls[: ring + 1])
    about = [max(row[(k + step) % ANGLES] for step in range(-6, 7)) for row in run]
    brightest = int(np.argmax(about))
    beyond = [
        pulls[at, k] for at in range(ring + 1) if abs(at - brightest) > 1 and not np.isnan(pulls[at, k])
    ]
    count = max(len(beyond), 1)
    left = (sum(beyond) / count - spikes.POINT_WING * about[brightest]) * count**0.5
    return about[brightest] > spikes.POINT_SIGMA and left < spikes.LEFT_SIGMA


def test_runs_of_rings_agree_with_their_slow_twin() -> None:
    """Ring after ring in a plain loop, with gaps."""
    rng = np.random.default_rng(3)
    pulls = (rng.normal(size=(3, 12, ANGLES)) * 2 + 1).astype(np.float32)
    pulls[rng.random(pulls.shape) < 0.2] = np.nan
    fast = spikes._surest_runs(pulls, np.ones(3, np.intp))
    for star in range(3):
        for k in range(ANGLES):
            best, length, total, lit, known, dark = -np.inf, 1, 0.0, 0, 0, 0
            for ring, pull in enumerate(pulls[star, :, k]):
                if np.isnan(pull):
                    dark = 0
                    continue
                known += 1
                total += min(max(pull, -spikes.PLACE_CLIP), spikes.PLACE_CLIP)
                lit += pull > spikes.LIT_SIGMA
                dark = 0 if pull > spikes.LIT_SIGMA else dark + 1
                if dark == spikes.DARK_RINGS:
                    break
                sigma = total / (spikes.RINGS_SCATTER * np.sqrt(known))
                is_run = known >= spikes.FEWEST_RINGS and lit >= spikes.LIT_SHARE * known
                is_run &= ring >= spikes.POINT_RINGS or not explained_by_a_point(pulls[star], ring, k)
                if is_run and pull > spikes.LIT_SIGMA and sigma > best:
                    best, length = sigma, ring + 1
            assert fast.strength[star, k] == pytest.approx(best, rel=1e-5)
            assert fast.length[star, k] == length
