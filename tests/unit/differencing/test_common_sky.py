"""Both frames' sky is where neither has a source: gains and differences of crowded fields."""

import numpy as np
import pytest

from astrid_workers.differencing.match_frames import level_on_common_sky, match_frames
from astrid_workers.differencing.measure import Measured, measure_frame
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.sky import Sky, make_sky


def crowded(seed: int) -> tuple[Sky, tuple[Measured, Measured]]:
    """Eight thousand stars per megapixel, seen more sharply in the reference."""
    sky = make_sky(
        seed=seed, shape=(640, 640), n_stars=3300, star_flux_e=(5e2, 2e5), n_galaxies=100, n_transients=0,
        fwhm_science_px=3.6, fwhm_reference_px=2.8, transparency=0.85,
    )  # fmt: skip
    options = DifferenceOptions()
    return sky, (measure_frame(sky.science, options), measure_frame(sky.reference, options))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_gain_of_a_crowded_field_is_right(seed: int) -> None:
    """By itself the broader frame takes more faint stars for sky, and seems to be fainter."""
    sky, seen = crowded(seed)
    level_on_common_sky(seen)
    assert match_frames(seen, DifferenceOptions()).flux_scale == pytest.approx(sky.flux_scale, rel=0.003)


def test_every_pixel_moves_by_one_number_but_masked_ones() -> None:
    _, seen = crowded(3)
    seen[0].unusable[100:120, 100:120] = True
    seen[0].image[seen[0].unusable] = 0
    before = seen[0].image.copy()
    level_on_common_sky(seen)
    moved = (seen[0].image - before)[~seen[0].unusable]
    assert not seen[0].image[seen[0].unusable].any()
    assert np.ptp(moved) < 1e-3
    assert 0.03 < moved.mean() / seen[0].background.rms_median < 0.3
