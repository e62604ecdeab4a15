"""Real pairs run to the end, and their noise is what it should be."""

from functools import lru_cache

import numpy as np
import pytest

from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.mask import MaskBit
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.storage.fits import read_frame
from support.real_frames import real_frame


@lru_cache(maxsize=4)
def eso_pair(algorithm: str) -> PairResult:
    """Two exposures of ESO 085-030, 74 s apart, uint16, without GAIN and WCS: nothing changed between them."""
    science, reference = (read_frame(real_frame(f"eso085_pair/eso085_{n}.fit")) for n in ("004", "005"))
    options = DifferenceOptions(algorithm=algorithm)  # type: ignore[arg-type]
    return run_pair(calibrate(science).frame, calibrate(reference).frame, options)


@pytest.mark.parametrize("algorithm", ["zogy", "classic"])
def test_null_pair_gives_hardly_a_candidate(algorithm: str) -> None:
    """At most 3 per Mpix where plain ZOGY gives 37, ZOGY with a guessed registration noise 7 and HOTPANTS 67."""
    pair = eso_pair(algorithm)
    per_mpix = len(pair.candidates) / (pair.difference.score.size / 1e6)
    assert per_mpix <= 3.0, [(c.x, c.y, c.score, c.flags) for c in pair.candidates.items]


@pytest.mark.parametrize("algorithm", ["zogy", "classic"])
def test_null_pair_has_honest_noise(algorithm: str) -> None:
    """Scatter, median and tails of the score, with a gain that was estimated and said to be."""
    pair = eso_pair(algorithm)
    checked = pair.validation
    assert checked.std == pytest.approx(1.0, abs=0.03)
    assert abs(checked.median) <= 0.1
    assert checked.tail_ratio <= 1.5
    assert any("GAIN" in sentence for sentence in pair.difference.assumed)
    assert pair.difference.fwhm_science_px == pytest.approx(2.65, abs=0.2)
    assert pair.difference.noise_scale == pytest.approx(1.0, abs=0.15)


def test_without_a_wcs_candidates_have_no_sky_position() -> None:
    """And the report says that one grid was assumed."""
    pair = eso_pair("zogy")
    assert pair.wcs is None
    assert all(c.ra_deg is None for c in pair.candidates.items)
    assert any("WCS" in sentence for sentence in pair.difference.assumed)


@lru_cache(maxsize=1)
def nircam_pair() -> PairResult:
    """Resampled mosaics in MJy/sr with noise maps; the telescope had rolled between them."""
    folder = "jwst_nircam_a2744"
    science, reference = (
        read_frame(real_frame(f"{folder}/{n}.fits"), noise=real_frame(f"{folder}/{n}.noise.fits"))
        for n in ("sci", "ref")
    )
    return run_pair(calibrate(science).frame, calibrate(reference).frame, DifferenceOptions())


def test_nircam_mosaics_get_their_correlated_noise_measured() -> None:
    """Scatter within 0.1 where library PSFs gave 1.74."""
    pair = nircam_pair()
    assert pair.validation.std == pytest.approx(1.0, abs=0.1)
    assert pair.difference.noise_scale == pytest.approx(1.0, abs=0.1)
    assert any("correlated" in sentence for sentence in pair.difference.assumed)
    assert pair.difference.unit == "MJy/sr"
    assert np.isfinite(pair.difference.score).mean() > 0.95


def test_spikes_of_a_star_that_does_not_clip_are_flagged_on_nircam() -> None:
    """Bright rays and dark ones of one star, 30 degrees apart; without them 10 clean candidates were there."""
    pair = nircam_pair()
    near = [c for c in pair.candidates.items if np.hypot(c.x - 278.5, c.y - 640.5) < 25]
    assert pair.difference.numbers["saturated_stars"] == 0
    assert sum("stray_light" in c.flags for c in near) >= 2
    assert sum(not c.is_doubted for c in near) <= 5
    marked = (pair.difference.mask & np.uint32(MaskBit.STRAY_LIGHT)) != 0
    rows, columns = np.nonzero(marked)
    assert np.hypot(columns - 278.5, rows - 640.5).max() < 40
    assert sum(not c.is_doubted for c in pair.candidates.items) <= 12
