"""Pictures are averaged as a plain mean of measured pixels says."""

import numpy as np
import pytest

from astrid_workers.report.stretch import block_mean


@pytest.mark.parametrize("most", [7, 20, 64])
def test_blocks_are_means_of_what_is_measured(most: int) -> None:
    """The twin: a mean without NaN of each block; a block of NaN alone stays NaN, and a small image as it is."""
    image = np.random.default_rng(3).normal(50, 9, (61, 53)).astype(np.float32)
    image[np.random.default_rng(4).uniform(size=image.shape) < 0.05] = np.nan
    image[:18, 9:30] = np.nan
    image[40, 40] = np.inf
    step = -(-61 // most)

    seen = block_mean(image, most)

    assert seen.shape == (61 // step, 53 // step)
    if step == 1:
        np.testing.assert_array_equal(seen, image)
        return
    for (row, column), mean in np.ndenumerate(seen):
        block = image[row * step : (row + 1) * step, column * step : (column + 1) * step]
        measured = block[np.isfinite(block)]
        plain = measured.mean() if measured.size else np.nan
        np.testing.assert_allclose(mean, plain, rtol=1e-5)
    assert np.isnan(seen).any()
