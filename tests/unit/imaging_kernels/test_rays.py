"""Which rays are believed, as a table of what is seen."""

import numpy as np
import pytest

from astrid_workers.imaging.rays import ANGLES, Belief, Sighted, believed_rays, common_angles, direction

BELIEF = Belief(stronger=6.0, weaker=4.5, common_stronger=4.0, common_weaker=2.5, cut=6.0, cut_alone=9.0)
HALF = ANGLES // 2


def seen(
    n_stars: int, rays: dict[tuple[int, int], float], closed: tuple[tuple[int, int], ...] = ()
) -> Sighted:
    """Strengths by star and angle, and angles that are not open."""
    strength, is_open = np.full((n_stars, ANGLES), -np.inf), np.ones((n_stars, ANGLES), bool)
    for at, sigma in rays.items():
        strength[at] = sigma
    for at in closed:
        is_open[at] = False
    return Sighted(strength, np.full(strength.shape, 4), is_open, np.full(n_stars, 6))


@pytest.mark.parametrize(
    ("rays", "closed", "believed"),
    [
        ({(0, 10): 6.5, (0, 10 + HALF): 5.0}, (), [(0, 10), (0, 10 + HALF)]),
        ({(0, 10): 6.5, (0, 12 + HALF): 5.0}, (), [(0, 10), (0, 12 + HALF)]),
        ({(0, 10): 6.5, (0, 14 + HALF): 5.0}, (), []),
        ({(0, 10): 6.5, (0, 10 + HALF): 4.0}, (), []),
        ({(0, 10): 5.5, (0, 10 + HALF): 5.5}, (), []),
        ({(0, 10): 30.0}, (), []),
        ({(0, 10): 9.5}, ((0, 10 + HALF),), [(0, 10)]),
        ({(0, 10): 8.0}, ((0, 10 + HALF),), []),
        ({(0, 10): 8.0, (1, 9): 7.0, (1, 9 + HALF): 7.0}, ((0, 10 + HALF),), [(0, 10), (1, 9), (1, 9 + HALF)]),
        ({(0, 30): 8.0, (1, 9): 7.0, (1, 9 + HALF): 7.0}, ((0, 30 + HALF),), [(1, 9), (1, 9 + HALF)]),
        ({(0, 10): 7.0, (0, 14): 8.0, (0, 12 + HALF): 7.0}, (), [(0, 14), (0, 12 + HALF)]),
    ],
    ids=[
        "a pair", "a pair nearly opposite", "not opposite", "other side too faint", "both too faint", "one side",
        "cut and strong", "cut", "cut, of the pattern", "cut, beside the pattern", "two as one",
    ],
)  # fmt: skip
def test_a_ray_is_believed_for_its_other_side_or_for_the_pattern(
    rays: dict[tuple[int, int], float], closed: tuple[tuple[int, int], ...], believed: list[tuple[int, int]]
) -> None:
    """Two stars; each row is one of the rule's sentences."""
    assert believed_rays(seen(2, rays, closed), BELIEF) == believed


def test_faint_pairs_are_believed_at_an_angle_that_many_stars_share() -> None:
    """Ten of twenty stars; a ray to one side is not, nor is a pair elsewhere."""
    rays = {(star, angle): 4.2 for star in range(10) for angle in (20, 20 + HALF)}
    rays |= {(11, 20): 7.5, (12, 60): 4.2, (12, 60 + HALF): 4.2}
    believed = believed_rays(seen(20, rays), BELIEF)
    assert believed == [(star, angle) for star in range(10) for angle in (20, 20 + HALF)]


def test_chance_and_errors_of_a_psf_make_no_common_angle() -> None:
    """A strong ray of random angle per star; and light over 60 degrees, as a PSF's ellipse leaves it."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        angles = rng.integers(0, ANGLES, 80)
        by_chance = seen(80, {(star, int(angle)): 5.0 for star, angle in enumerate(angles)})
        assert not common_angles(by_chance.strength).any()
    wide = {
        (star, (angle + side) % ANGLES): 5.0
        for star in range(80)
        for angle in range(-15, 16)
        for side in (0, HALF)
    }
    assert not common_angles(seen(80, wide).strength).any()


def test_directions_go_once_around() -> None:
    """From the negative x axis over the negative y axis."""
    assert direction(HALF - 1) == pytest.approx(-np.pi / ANGLES)
    assert direction(HALF) == pytest.approx(np.pi / ANGLES)
    np.testing.assert_allclose(np.diff(direction(np.arange(ANGLES))), 2 * np.pi / ANGLES)
