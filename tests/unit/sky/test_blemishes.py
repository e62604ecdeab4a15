"""Every blemish does what its truth says, and nothing else of the sky moves."""

import numpy as np
import pytest

from astrid_workers.mask import MaskBit
from astrid_workers.sky import Blemishes, Sky, make_sky
from astrid_workers.sky.blemishes import GHOST_OFFSET_PX, bled, blemish
from astrid_workers.sky.light import Points

PLAIN = {"seed": 21, "shape": (256, 256), "n_stars": 40, "n_transients": 0, "n_saturated": 2}


def spoilt(**numbers) -> Sky:
    """The plain sky with one blemish."""
    return make_sky(**PLAIN, blemishes=Blemishes(**numbers))


def plain() -> Sky:
    """The same without any."""
    return make_sky(**PLAIN)


@pytest.mark.parametrize(
    "numbers",
    [
        {"n_satellites": 2}, {"n_hot_pixels": 30}, {"amplifier_step_e": 40.0}, {"fringe_e": 20.0},
        {"halo_share": 0.02}, {"ghost_share": 0.005}, {"spike_share": 0.01}, {"variable_share": 0.5}, {"bleeds": True},
        {"n_glint_chains": 1}, {"n_glint_trails": 1},
    ],
    ids=lambda numbers: next(iter(numbers)),
)  # fmt: skip
def test_a_blemish_spoils_the_science_frame_only(numbers: dict) -> None:
    """What is expected of the reference is the same; the science frame differs."""
    sky, clean = spoilt(**numbers), plain()
    np.testing.assert_array_equal(sky.reference.variance, clean.reference.variance)
    np.testing.assert_array_equal(sky.truth, clean.truth)
    assert not np.array_equal(sky.science.science, clean.science.science)


def test_no_blemish_is_on_unless_asked_for() -> None:
    """The truth of a plain sky is empty."""
    truth = plain().blemished
    for image in (truth.satellites, truth.hot_pixels, truth.stray_light, truth.pattern, truth.change_e):
        assert not image.any()
    assert truth.glints.dots.flux.size == truth.glints.trails.size == 0


def test_hot_pixels_stand_out_by_what_was_asked_and_nowhere_else() -> None:
    """No mask knows of them, and no draw of noise is moved."""
    sky, clean = spoilt(n_hot_pixels=30, hot_pixel_e=500.0), plain()
    change = sky.science.science - clean.science.science
    hot = sky.blemished.hot_pixels
    assert hot.sum() == 30
    assert not change[~hot].any()
    free = hot & (clean.science.mask == 0)
    np.testing.assert_allclose(change[free], 500.0, atol=0.1)
    assert not (sky.science.mask[free] & MaskBit.BAD_PIXEL).any()


def test_a_trail_is_as_bright_as_asked_and_crosses_the_frame() -> None:
    """Its truth covers it: outside of it the sky is the sky."""
    sky = spoilt(n_satellites=1, satellite_e=200.0)
    trail = sky.blemished.satellites
    empty = (sky.science.mask == 0) & (sky.science.variance < 1.5 * 425)
    assert trail.sum() > 3 * 100
    excess = sky.science.science[trail & empty].mean() - plain().science.science[trail & empty].mean()
    assert excess == pytest.approx(200.0, abs=4.0)


def test_patterns_are_part_of_the_true_background() -> None:
    """Fringes and steps are in `background_science`, so that an oracle can take them off."""
    sky = spoilt(amplifier_step_e=40.0, fringe_e=20.0)
    pattern = sky.blemished.pattern
    np.testing.assert_allclose(sky.background_science, 400.0 + pattern, rtol=1e-6)
    assert pattern[:, 128:].mean() - pattern[:, :128].mean() == pytest.approx(40.0, abs=4.0)
    assert np.ptp(pattern[:, :128]) == pytest.approx(40.0, rel=0.15)


@pytest.mark.parametrize("kind", ["halo_share", "ghost_share", "spike_share"])
def test_stray_light_holds_the_share_that_was_asked_for(kind: str) -> None:
    """One star that clips in the middle of a large empty frame."""
    x, y, flux = 170.3, 221.8, 1e7
    star = Points(np.array([x]), np.array([y]), np.array([flux]))
    stray = blemish(Blemishes(**{kind: 0.01}), 5, (400, 400), star, clips_e=1e6).stray_light
    assert stray.sum() == pytest.approx(0.01 * flux, rel=0.03)
    _, xx = np.indices((400, 400))
    centre = (stray * xx).sum() / stray.sum() - x
    assert centre == pytest.approx(GHOST_OFFSET_PX[0] if kind == "ghost_share" else 0.0, abs=0.5)


def test_spikes_go_along_their_angle_from_each_star_that_is_bright_enough() -> None:
    """A tenth of what clips suffices if that is asked for; the crosses are turned by 20 degrees."""
    stars = Points(np.array([100.0, 300.0]), np.array([100.0, 300.0]), np.array([2e5, 0.9e5]))
    asked = Blemishes(spike_share=0.01, spikes_from=0.1, spike_angle_deg=20.0)
    stray = blemish(asked, 5, (400, 400), stars, clips_e=1e6).stray_light
    assert stray.sum() == pytest.approx(0.01 * 2e5, rel=0.03)
    turn = np.radians(20.0)
    for angle in turn + np.arange(4) * np.pi / 2:
        assert stray[round(100 + 25 * np.sin(angle)), round(100 + 25 * np.cos(angle))] > 1.0
    assert stray[100, 125] < 0.1


def test_bleeding_keeps_the_charge_and_fills_no_well_over() -> None:
    """Up and down alike, along the column only."""
    charge = np.zeros((41, 5))
    charge[20, 2] = 1100.0
    full = bled(charge, 100.0)
    assert full.sum() == pytest.approx(1100.0)
    assert full.max() == pytest.approx(100.0)
    assert not full[:, [0, 1, 3, 4]].any()
    np.testing.assert_allclose(full[20:, 2], full[20::-1, 2])


def test_variable_stars_change_by_what_the_truth_says() -> None:
    """Summed over a frame without noise of the sky: the change of the light is the change of the list."""
    dark = {**PLAIN, "n_saturated": 0, "sky_e": 0.0, "read_noise_e": 0.0}
    sky = make_sky(**dark, blemishes=Blemishes(variable_share=0.4, variable_rms=0.5))
    inner = (
        (np.abs(sky.star_x - 127.5) < 90) & (np.abs(sky.star_y - 127.5) < 90) & (sky.blemished.change_e != 0)
    )
    assert 3 < np.count_nonzero(sky.blemished.change_e) < 35
    change = sky.science.science - make_sky(**dark).science.science
    brightest = np.flatnonzero(inner)[np.argmax(np.abs(sky.blemished.change_e[inner]))]
    x, y = round(sky.star_x[brightest]), round(sky.star_y[brightest])
    box = change[max(y - 9, 0) : y + 10, max(x - 9, 0) : x + 10]
    assert box.sum() == pytest.approx(sky.blemished.change_e[brightest], rel=0.15)


def test_glints_are_dots_on_a_line_and_even_trails_of_the_light_that_was_asked_for() -> None:
    """All inside the frame; what is seen of them is what the truth says."""
    dark = {**PLAIN, "n_stars": 0, "n_saturated": 0, "sky_e": 0.0, "read_noise_e": 0.0}
    chains = Blemishes(n_glint_chains=2, glint_dots=4, n_glint_trails=3, glint_e=4e4)
    sky = make_sky(**dark, blemishes=chains)
    glints = sky.blemished.glints
    for k in (0, 1):
        x, y = (each[glints.chain == k] for each in (glints.dots.x, glints.dots.y))
        assert x.size == 4
        steps = np.hypot(np.diff(x), np.diff(y))
        assert np.ptp(steps) < 1.5
        assert np.hypot(x[-1] - x[0], y[-1] - y[0]) == pytest.approx(steps.sum(), abs=0.05)
    lengths = np.hypot(glints.trails[:, 2] - glints.trails[:, 0], glints.trails[:, 3] - glints.trails[:, 1])
    assert (lengths > 5.9).all()
    assert (lengths < 40.1).all()
    np.testing.assert_allclose(glints.dots.flux, 4e4, rtol=0.31)
    places = np.concatenate([np.column_stack([glints.dots.x, glints.dots.y]), glints.trails[:, :2]])
    assert (places > 10).all()
    assert (places < 245).all()
    light = glints.light()
    assert light.flux.sum() == pytest.approx(glints.dots.flux.sum() + 3 * 4e4)
    assert sky.science.science.sum() == pytest.approx(light.flux.sum(), rel=0.03)


def test_a_glint_that_fits_nowhere_is_refused() -> None:
    """A trail longer than the frame."""
    with pytest.raises(ValueError, match="a glint of 900 pixels does not fit into 256 x 256"):
        spoilt(n_glint_trails=1, glint_trail_px=(900.0, 900.0))
