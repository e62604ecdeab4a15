"""What colours do to the science frame alone, and what moved between the frames."""

import numpy as np
from numpy.typing import NDArray

from astrid_workers.sky import Sky, make_sky

BRIGHT = {"n_stars": 60, "n_transients": 0, "star_flux_e": (1e5, 3e5), "shape": (600, 600), "sky_e": 50.0}


def moments(sky: Sky, which: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """(flux, centroid in y minus the star's) of each star in one frame, and which of them stand alone."""
    frame = sky.science if which == "science" else sky.reference
    image = frame.science - getattr(sky, f"background_{which}")
    x, y = sky.star_x, sky.star_y
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e3 * np.eye(x.size)
    alone = (apart.min(axis=1) > 40) & (np.abs(x - 299.5) < 270) & (np.abs(y - 299.5) < 270)
    flux, off = np.zeros(x.size), np.zeros(x.size)
    for star in np.flatnonzero(alone):
        column, row = round(x[star]), round(y[star])
        cut = image[row - 12 : row + 13, column - 12 : column + 13]
        flux[star] = cut.sum()
        off[star] = (cut.sum(axis=1) * (np.arange(-12, 13) + row - y[star])).sum() / cut.sum()
    return flux, off, alone


def test_colours_change_fluxes_and_places_in_the_science_frame_alone() -> None:
    """Each star by its colour: red ones up, say, and shifted one way."""
    sky = make_sky(seed=5, colour_gain=0.05, refraction_px=0.1, **BRIGHT)
    science, off, alone = moments(sky, "science")
    reference, off_reference, _ = moments(sky, "reference")
    colour = sky.star_colour[alone]

    assert alone.sum() >= 12
    gain = science[alone] / reference[alone] / sky.flux_scale - 1
    assert np.std(gain - 0.05 * colour) < 0.01
    assert np.std(off[alone] - 0.1 * colour) < 0.03
    assert np.std(off_reference[alone]) < 0.03


def test_neither_is_there_unless_asked_for() -> None:
    """The same pixels, and no transient more."""
    plain, off = make_sky(seed=5, **BRIGHT), make_sky(seed=5, colour_gain=0.0, n_moving=0, **BRIGHT)
    np.testing.assert_array_equal(plain.science.science, off.science.science)
    assert plain.truth.size == 0


def test_a_moving_object_is_a_transient_of_each_sign() -> None:
    """As bright here as it was there, and as far away as was asked for; others are drawn as before."""
    settings = {"shape": (400, 400), "n_stars": 0, "transient_snr": (80.0, 90.0), "sky_e": 100.0}
    sky = make_sky(seed=6, n_transients=3, n_moving=4, motion_px=(10.0, 12.0), **settings)
    without = make_sky(seed=6, n_transients=3, **settings)
    now, before = sky.truth[3:7], sky.truth[7:]

    np.testing.assert_array_equal(sky.truth["x"][:3], without.truth["x"])
    assert list(now["sign"]) == [1] * 4
    assert list(before["sign"]) == [-1] * 4
    np.testing.assert_array_equal(now["flux_e"], before["flux_e"])
    far = np.hypot(now["x"] - before["x"], now["y"] - before["y"])
    assert np.all((far >= 10) & (far <= 12))
    for frame, rows, background in (
        (sky.science, now, sky.background_science),
        (sky.reference, before, sky.background_reference),
    ):
        for row in rows:
            column, line = round(row["x"]), round(row["y"])
            peak = (frame.science - background)[line - 1 : line + 2, column - 1 : column + 2].max()
            assert peak > 8 * np.sqrt(frame.variance[line, column])
