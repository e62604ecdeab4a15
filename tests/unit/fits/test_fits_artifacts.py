"""Our own FITS files give back exactly what went in."""

import io
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Frame, HeaderFacts
from astrid_workers.sky import make_sky
from astrid_workers.storage.fits import frame_from_fits, frame_to_fits, image_to_fits, read_frame
from support.real_frames import real_frame


def assert_same(one: Frame, other: Frame) -> None:
    np.testing.assert_array_equal(one.science, other.science)
    np.testing.assert_array_equal(one.variance, other.variance)
    np.testing.assert_array_equal(one.mask, other.mask)
    assert one.facts == other.facts
    assert (one.unit, one.assumed, one.name) == (other.unit, other.assumed, other.name)


@pytest.mark.parametrize("with_wcs", [True, False])
def test_a_frame_survives_the_round_trip(with_wcs: bool) -> None:
    """Every pixel, bit and fact, with infinite variance, all mask bits and letters beyond ASCII."""
    sky = make_sky(seed=1, shape=(40, 50), n_stars=5, nan_block_px=5, with_wcs=with_wcs)
    facts = replace(sky.science.facts, object_name="Nébuleuse – ☆", gain_e_per_adu=1 / 3, airmass=None)
    frame = replace(sky.science, facts=facts, assumed=("eins", "zwei 'quoted' — é"))
    frame.mask[0, 0] = 0xFFFFFFFF
    back = frame_from_fits(frame_to_fits(frame))
    assert_same(back, frame)
    assert (back.wcs is None) == (not with_wcs)
    if with_wcs:
        places = np.array([0.0, 20.0, 49.0]), np.array([0.0, 30.0, 39.0])
        np.testing.assert_allclose(
            back.wcs.all_pix2world(*places, 0), frame.wcs.all_pix2world(*places, 0), rtol=0, atol=1e-9
        )


def test_the_same_frame_gives_the_same_bytes() -> None:
    """A store tells equal artifacts by their checksum, also after a round trip."""
    frame = make_sky(seed=2, shape=(32, 32), n_stars=3).science
    data = frame_to_fits(frame)
    assert frame_to_fits(frame) == data
    assert frame_to_fits(frame_from_fits(data)) == data


def test_a_bare_frame_survives() -> None:
    """Nothing known at all: every fact None."""
    zeros = np.zeros((3, 4), np.float32)
    frame = Frame(zeros, zeros + 1, np.zeros((3, 4), np.uint32), None, "adu", HeaderFacts())
    assert_same(frame_from_fits(frame_to_fits(frame)), frame)


def test_a_distorted_wcs_survives() -> None:
    """TPV of a DECam stamp: the same sky to a microarcsecond."""
    frame = read_frame(real_frame("decam_decorrelation/DEC-OBS18a.mini.fits"))
    back = frame_from_fits(frame_to_fits(frame))
    places = np.array([0.0, 100.0, 255.0]), np.array([0.0, 200.0, 255.0])
    np.testing.assert_allclose(
        back.wcs.all_pix2world(*places, 0), frame.wcs.all_pix2world(*places, 0), rtol=0, atol=3e-10
    )


def test_a_foreign_file_is_not_an_artifact() -> None:
    """Only what `frame_to_fits` wrote is read back as a frame."""
    with pytest.raises(FrameRejected, match="not a frame artifact of Astrid"):
        frame_from_fits(image_to_fits(np.zeros((4, 4), np.float32)), "other.fits")


def test_an_artifact_can_be_read_as_any_file() -> None:
    """Others, and we ourselves, can open SCI of an artifact as an image in electrons."""
    frame = make_sky(seed=3, shape=(64, 64), n_stars=3).science
    other = read_frame(frame_to_fits(frame), name="x")
    np.testing.assert_array_equal(other.science, frame.science)
    assert other.unit == "electron"


def test_an_image_keeps_nan_and_its_cards() -> None:
    """NaN is not measured; a card that is None is left out; odd characters do not fail."""
    pixels = np.full((5, 6), np.nan, np.float32)
    pixels[1, 2] = 7
    wcs = make_sky(seed=1, shape=(5, 6), n_stars=0, n_transients=0).science.wcs
    data = image_to_fits(pixels, wcs=wcs, cards={"BUNIT": "électron", "ALGORITH": None, "FSCALE": 0.5})
    with fits.open(io.BytesIO(data)) as units:
        np.testing.assert_array_equal(units[0].data, pixels)
        assert units[0].header["BUNIT"] == "?lectron"
        assert units[0].header["FSCALE"] == 0.5
        assert "ALGORITH" not in units[0].header
        assert units[0].header["CTYPE1"] == "RA---TAN"
