"""The pixel kernel of stacking: against a plain twin, and rule by rule."""

import numpy as np
import pytest

from astrid_workers.defaults import CLIP_SIGMA
from astrid_workers.differencing.row_store import RowStore
from astrid_workers.imaging.combine import (
    FORGIVEN_RANGE,
    NEIGHBOUR_PX,
    NEIGHBOUR_SIGMA,
    RANGE_OF_NOISE,
    combine,
)


def _noise(n: int, shape: tuple[int, int] = (160, 90), seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(2, 4, (n, 1, 1))
    images = rng.normal(0, 1, (n, *shape)) * sigma
    return images.astype(np.float32), np.broadcast_to(sigma**2, images.shape).astype(np.float32)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_mean_and_variance_agree_with_the_slow_twin(n: int) -> None:
    """Bands of rows, masks and rejection give what a loop over pixels gives, the seam between bands included."""
    images, variances = _noise(n)
    rng = np.random.default_rng(2)
    variances = np.where(rng.uniform(size=variances.shape) < 0.1, np.float32(np.inf), variances)
    images[0, 125:131, 40] += 90  # across the seam at row 128
    weights = rng.uniform(1, 2, n)
    fast = combine(list(images), list(variances), weights)
    for y in (0, 5, 127, 128, 129, 130, 159):
        for x in (0, 39, 40, 41, 77):
            image, variance, used = _slow(images, variances, weights, y, x)
            assert fast.image[y, x] == pytest.approx(image, abs=1e-4)
            assert fast.variance[y, x] == pytest.approx(variance, rel=1e-4)
            assert fast.n_used[y, x] == used


def _slow(
    images: np.ndarray, variances: np.ndarray, weights: np.ndarray, y: int, x: int
) -> tuple[float, float, int]:
    """One pixel by the definition."""
    ny, nx = images.shape[1:]
    reach = range(-NEIGHBOUR_PX, NEIGHBOUR_PX + 1)
    around = [(y + j, x + i) for j in reach for i in reach if 0 <= y + j < ny and 0 <= x + i < nx]
    cores = {k for j, i in around for k in _excess(images, variances, j, i, CLIP_SIGMA)}
    own = _excess(images, variances, y, x, CLIP_SIGMA)
    gone = own | (cores & _excess(images, variances, y, x, NEIGHBOUR_SIGMA))
    kept = [k for k in range(len(images)) if np.isfinite(variances[k, y, x]) and k not in gone]
    if not kept:
        return 0.0, np.inf, 0
    w = weights[kept]
    mean = float(np.sum(w * images[kept, y, x]) / w.sum())
    return mean, float(np.sum(w**2 * variances[kept, y, x]) / w.sum() ** 2), len(kept)


def _excess(images: np.ndarray, variances: np.ndarray, y: int, x: int, clip: float) -> set[int]:
    ny, nx = images.shape[1:]

    def middle(j: int, i: int) -> float:
        values = np.sort(images[np.isfinite(variances[:, j, i]), j, i])
        if values.size == 2:
            return float(values[0])
        return float(np.median(values)) if values.size else 0.0

    around = [
        middle(min(max(j, 0), ny - 1), min(max(i, 0), nx - 1))
        for j in (y - 1, y, y + 1)
        for i in (x - 1, x, x + 1)
    ]
    usable = np.flatnonzero(np.isfinite(variances[:, y, x]))
    if usable.size < 2:
        return set()
    of_median = np.pi / 2 * np.mean(variances[usable, y, x]) / usable.size
    forgiven = FORGIVEN_RANGE * max(max(around) - min(around) - RANGE_OF_NOISE * np.sqrt(of_median), 0)
    return {
        int(k) for k in usable
        if abs(images[k, y, x] - middle(y, x)) - forgiven > clip * np.sqrt(variances[k, y, x] + of_median)
    }  # fmt: skip


def test_noise_alone_is_hardly_ever_left_out() -> None:
    """Clipping at 5 sigma costs less than one pixel in 20 000 of Gaussian noise, and leaves the variance right."""
    images, variances = _noise(5, (300, 300))
    made = combine(list(images), list(variances), 1 / variances[:, 0, 0].astype(float))
    assert sum(made.n_rejected) < 5 * 300 * 300 / 20_000
    assert np.std(made.image / np.sqrt(made.variance)) == pytest.approx(1.0, abs=0.01)


def test_light_in_one_frame_only_is_left_out_even_of_two() -> None:
    """A ray in one of two frames goes; in the other direction it would be the lower that stays."""
    images, variances = _noise(2)
    images[1, 50, 50] += 200
    made = combine(list(images), list(variances), np.ones(2))
    assert made.n_used[50, 50] == 1
    assert abs(made.image[50, 50]) < 20
    assert made.n_rejected[1] >= 1


def test_seeing_that_differs_is_no_outlier() -> None:
    """A bright star of another width keeps its light: what moves between neighbouring pixels is forgiven."""
    y, x = np.indices((61, 61)) - 30.0
    widths = (1.2, 1.3, 1.45)
    stars = [1e5 / (2 * np.pi * s**2) * np.exp(-(x**2 + y**2) / (2 * s**2)) for s in widths]
    images = [star.astype(np.float32) for star in stars]
    made = combine(images, [np.full((61, 61), 100, np.float32)] * 3, np.ones(3))
    assert made.image.sum() == pytest.approx(1e5, rel=0.003)


def test_pixels_that_no_frame_has_are_empty() -> None:
    """Nothing usable: 0 with infinite variance, and no frame counted."""
    images, variances = _noise(3)
    variances[:, 10:20, 10:20] = np.inf
    made = combine(list(images), list(variances), np.ones(3))
    assert (made.n_used[10:20, 10:20] == 0).all()
    assert np.isposinf(made.variance[10:20, 10:20]).all()
    assert (made.image[10:20, 10:20] == 0).all()


def test_the_size_of_a_band_changes_nothing_and_images_may_wait_on_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(8)
    images = random.normal(0, 10, (5, 150, 70)).astype(np.float32)
    images[2, 60:70] += 300
    variances = np.full(images.shape, 100, np.float32)
    variances[1, :40] = np.inf
    whole = combine(list(images), list(variances), np.ones(5))
    monkeypatch.setattr("astrid_workers.imaging.combine.BAND_PIXELS", 1)
    with RowStore() as store:
        stored = [[store.put(image) for image in planes] for planes in (images, variances)]
        banded = combine(*stored, np.ones(5))
    assert whole.n_rejected == banded.n_rejected
    for name in ("image", "variance", "n_used"):
        assert np.array_equal(getattr(whole, name), getattr(banded, name))


def test_stored_rows_are_those_that_were_put_and_the_disk_is_free_afterwards() -> None:
    image = np.arange(35, dtype=np.uint32).reshape(7, 5)
    with RowStore() as store:
        stored = store.put(image[:, :])
        turned = store.put(image.T)
        for rows in (slice(None), slice(2, 4), slice(5, 99), slice(4, 4), slice(-2, None)):
            assert np.array_equal(stored[rows], image[rows])
        assert np.array_equal(turned[1:3], image.T[1:3])
        with pytest.raises(ValueError, match="steps of 2"):
            stored[::2]
        folder = stored.path.parent
    assert not folder.exists()
