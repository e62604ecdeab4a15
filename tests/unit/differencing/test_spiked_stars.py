"""Spikes in pairs: of stars that clip and that do not, cut off by the edge, of either frame, and none."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.differencing.difference import difference
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.products import Candidate, Difference
from astrid_workers.frame import Frame
from astrid_workers.mask import MaskBit
from astrid_workers.sky import Blemishes, Sky, make_sky

#: Three hundredths of the light of each star from a tenth of what clips on.
SPIKED = Blemishes(spike_share=0.03, spikes_from=0.1, spike_angle_deg=17.0)


@lru_cache(maxsize=4)
def sky(blemishes: Blemishes = SPIKED, **changes: Any) -> Sky:
    """Many bright stars that do not clip; the reference is sharper."""
    settings: dict[str, Any] = {
        "seed": 8159, "shape": (448, 448), "n_stars": 300, "n_transients": 12, "fwhm_science_px": 3.6,
        "fwhm_reference_px": 2.8, "ellipticity_science": 0.06, "transparency": 0.85, "shift_field_px": 0.06,
        "psf_gradient": 0.1, "star_flux_e": (2e3, 8e5), "transient_snr": (8.0, 40.0), "host_fraction": 0.0,
    }  # fmt: skip
    return make_sky(blemishes=blemishes, **(settings | changes))


def marked(made: Difference) -> NDArray[np.bool_]:
    """What is flagged as stray light."""
    return (made.mask & np.uint32(MaskBit.STRAY_LIGHT)) != 0


def false_ones(made: Difference, truth: Sky) -> list[Candidate]:
    """Candidates that are no transient."""
    return [
        c
        for c in extract_sources(made).items
        if np.min(np.hypot(truth.truth["x"] - c.x, truth.truth["y"] - c.y)) > 3
    ]


def test_what_stands_on_spikes_of_stars_that_do_not_clip_is_flagged() -> None:
    """Most candidates, of the science frame's rays; transients off the rays are not."""
    spiked = sky()
    made = difference(spiked.science, spiked.reference)
    found = false_ones(made, spiked)
    assert made.numbers["saturated_stars"] == 0
    assert len(found) > 15
    assert sum(not c.is_doubted for c in found) <= 0.15 * len(found)
    assert marked(made).mean() < 0.1
    lit = ndimage.maximum_filter(spiked.blemished.stray_light > 0.1, 2 * 9 + 1)
    off = [row for row in spiked.truth if not lit[round(row["y"]), round(row["x"])]]
    assert len(off) >= 5
    assert not any(marked(made)[round(row["y"]), round(row["x"])] for row in off)


def test_spikes_of_the_reference_are_flagged_too() -> None:
    """The same pair the other way round: rays are dark."""
    spiked = sky()
    made = difference(spiked.reference, spiked.science)
    found = false_ones(made, spiked)
    assert sum(c.score < 0 for c in found) > 15
    assert sum(not c.is_doubted for c in found) <= 0.15 * len(found)


def test_both_patterns_of_a_rotated_field_are_flagged() -> None:
    """The reference's crosses are turned by 40 degrees; its spikes are put on it as they are on the other."""
    spiked = sky()
    turned = sky(replace(SPIKED, spike_angle_deg=57.0)).blemished.stray_light / 0.85
    reference = replace(
        spiked.reference,
        science=(spiked.reference.science + turned).astype(np.float32),
        variance=(spiked.reference.variance + turned).astype(np.float32),
    )
    made = difference(spiked.science, reference)
    found = false_ones(made, spiked)
    assert len(found) >= 12
    assert min(sum(c.score > 0 for c in found), sum(c.score < 0 for c in found)) >= 3
    assert sum(not c.is_doubted for c in found) <= 0.15 * len(found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_stars": 1500, "star_flux_e": (5e2, 1e6)},
        {"n_galaxies": 500, "galaxy_sigma_px": (0.8, 5.0)},
        {"fwhm_science_px": 1.8, "fwhm_reference_px": 1.6},
        {"n_saturated": 6},
    ],
    ids=["bright stars", "crowded", "galaxies", "undersampled", "saturated"],
)
def test_without_spikes_nothing_is_flagged(changes: dict[str, Any]) -> None:
    """No transient, and no pixel, on frames that hold what may look like rays."""
    plain = sky(Blemishes(), **changes)
    made = difference(plain.science, plain.reference)
    assert made.numbers["spikes"] == 0
    assert not marked(made).any()


def test_spikes_whose_other_side_is_beyond_the_edge_are_flagged() -> None:
    """Frames that end 14 px beside a star that clips: three of its rays are left, one without a counterpart."""
    whole = make_sky(
        seed=8121, shape=(448, 448), n_stars=110, n_transients=0, n_saturated=3, fwhm_science_px=3.6,
        fwhm_reference_px=2.8, blemishes=Blemishes(spike_share=0.01),
    )  # fmt: skip
    brightest = int(np.argmax(whole.star_flux_e))
    x, y = round(whole.star_x[brightest]), round(whole.star_y[brightest])
    science, reference = (_from_column(frame, x - 14) for frame in (whole.science, whole.reference))
    made = difference(science, reference)
    reach = slice(14 + 18, 14 + 45)
    assert marked(made)[y, reach].all()
    on_ray = [c for c in extract_sources(made).items if abs(c.y - y) < 5 and 30 < c.x < 70]
    assert on_ray
    assert all("stray_light" in c.flags for c in on_ray)


def _from_column(frame: Frame, first: int) -> Frame:
    """What lies right of a column, as a frame of its own."""
    planes = (np.ascontiguousarray(p[:, first:]) for p in (frame.science, frame.variance, frame.mask))
    science, variance, mask = planes
    return replace(frame, science=science, variance=variance, mask=mask, wcs=None)
