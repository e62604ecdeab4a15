"""Positions that users give, as a table of files and what is made of them."""

import numpy as np
import pytest

from astrid_workers.errors import SettingRejected
from astrid_workers.positions import read_positions
from astrid_workers.sky import make_sky


def test_pixels_and_sky_are_two_ways_to_say_one_place() -> None:
    """Through the WCS and back, a place is the same; names and the other coordinates come along."""
    wcs = make_sky(seed=1, shape=(64, 64), n_stars=3, n_transients=0).science.wcs
    by_pixel = read_positions("# mine\nname,x,y\nfirst,10.5,20\n\nsecond,3,4\n", "p.csv").on(wcs)
    lines = "\n".join(
        f"{ra:.9f}, {dec:.9f}" for ra, dec in zip(by_pixel.ra_deg, by_pixel.dec_deg, strict=True)
    )
    by_sky = read_positions(f"RA, Dec\n{lines}", "p.csv").on(wcs)
    assert by_pixel.names == ("first", "second")
    assert by_sky.names == ("0", "1")
    np.testing.assert_allclose(by_sky.x, [10.5, 3], atol=1e-4)
    np.testing.assert_allclose(by_sky.y, [20, 4], atol=1e-4)


def test_places_that_the_projection_does_not_have_are_nan() -> None:
    """The other side of the sky is not mirrored into the frame."""
    wcs = make_sky(seed=1, shape=(64, 64), n_stars=3, n_transients=0).science.wcs
    placed = read_positions("ra_deg,dec_deg\n330.1,-2.2\n150.1,2.2", "p.csv").on(wcs)
    assert np.isnan(placed.x[0])
    assert np.isfinite(placed.x[1])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "p.csv: no columns x,y or ra_deg,dec_deg in its heading, found: none"),
        ("a,b\n1,2", "p.csv: no columns x,y or ra_deg,dec_deg in its heading, found: a, b"),
        ("x,y\n1,2\n3,four", "p.csv: line 3: y is 'four', expected a number"),
        ("x,y\n1", "p.csv: line 2: y is '', expected a number"),
        ("x,y\n\n# no\nnan,2", "p.csv: line 4: x is 'nan', expected a number"),
        ("ra,dec\n10,95", "p.csv: line 2: dec_deg is 95, expected -90 to 90"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, sentence: str) -> None:
    """One sentence with file, line and what was expected."""
    with pytest.raises(SettingRejected) as refused:
        read_positions(text, "p.csv")
    assert str(refused.value) == sentence


def test_sky_positions_need_a_wcs() -> None:
    """RA and Dec on a frame without a WCS are refused; pixels are not."""
    with pytest.raises(SettingRejected, match="positions in RA and Dec need a WCS"):
        read_positions("ra,dec\n10,5", "p.csv").on(None)
    assert len(read_positions("x,y\n10,5", "p.csv").on(None)) == 1
