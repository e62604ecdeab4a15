"""The fast median against numpy's."""

import numpy as np
import pytest

from astrid_workers.imaging.fast_median import fast_median, fast_medians


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 17, 1000, 4097, 200_000])
def test_as_numpy_to_the_bit(dtype: type[np.floating], size: int) -> None:
    """Odd and even numbers of values, with ties, in both precisions."""
    rng = np.random.default_rng(size)
    for values in (rng.normal(size=size), np.rint(rng.normal(0, 3, size)), np.full(size, -0.7)):
        found = fast_median(values.astype(dtype))
        assert found.dtype == dtype
        assert found == np.median(values.astype(dtype))


def test_any_shape_and_stride() -> None:
    """Cuts of an image count as their values do, and are left as they were."""
    image = np.random.default_rng(3).normal(size=(60, 41)).astype(np.float32)
    before = image.copy()
    assert fast_median(image[::2, 3::5]) == np.median(image[::2, 3::5])
    assert np.array_equal(image, before)


def test_infinite_values_have_their_place() -> None:
    """Infinity is a large value."""
    values = np.array([np.inf, 1.0, -np.inf, 3.0, 2.0])
    assert fast_median(values) == 2.0


@pytest.mark.parametrize("values", [[], [np.nan], [1.0, np.nan, 2.0], [np.nan] * 4 + [1.0]])
def test_nan_where_nothing_is_known(values: list[float]) -> None:
    """One NaN makes the median NaN, wherever it stands, as does an empty array."""
    assert np.isnan(fast_median(np.array(values)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 31, 200])
def test_of_a_stack_as_numpy_to_the_bit(dtype: type[np.floating], n: int) -> None:
    """Pixel by pixel of odd and even numbers of images, which are left as they were."""
    stack = np.rint(np.random.default_rng(n).normal(0, 40, (n, 7, 11))).astype(dtype) / dtype(7)
    before = stack.copy()
    found = fast_medians(stack)
    assert found.dtype == dtype
    assert np.array_equal(found, np.median(stack, axis=0))
    assert np.array_equal(stack, before)
