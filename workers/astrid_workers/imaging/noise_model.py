"""The noise of a frame as its own sky shows it: how strong, against the variance plane, and how correlated.

Owns the autocovariance of blank sky and the power spectrum from it; never changes a variance plane by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal import fftconvolve

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.fast_median import fast_median

#: Noise is taken as uncorrelated beyond this many pixels.
MAX_LAG_PX = 4
#: Sky values further out than this are not noise.
CLIP_SIGMA = 4.0
#: What clipping a Gaussian at `CLIP_SIGMA` leaves of its variance.
_CLIPPED_VARIANCE = 0.99893
#: More pixels than this add nothing to a correlation; larger frames are measured in bands of rows.
ENOUGH_PIXELS, BAND_PX = 1_000_000, 128
#: Sky pixels below which nothing is measured and white noise is assumed.
MIN_PIXELS = 2000
#: Light that two frames share is told from chance by so many sigma at the largest lags (in a first look, by
#: fewer at none), and is worth to be known from this share of the variance on.
SHARED_SIGMA, PROBE_SIGMA, LEAST_SHARED = 6.0, 4.0, 0.01
#: Light that claims more of a frame's variance than this is a wrong estimate: nothing would be left as noise.
MOST_SHARED = 0.85
#: Sources are found, and left out, where they are sharp: light that is left differs between two frames by
#: this share of what their PSFs do (measured on crowded frames).
SHARPNESS_LEFT = 0.5
#: Noise power is at least this share of white noise's, at any frequency: a correlation is an estimate.
LEAST_POWER = 0.02
#: By how many e-folds one PSF's autocovariance may exceed another's at any lag: wings are no Gaussians.
MOST_WIDER = 1.0
#: The largest lags.
_RIM = np.ones((2 * MAX_LAG_PX + 1, 2 * MAX_LAG_PX + 1), bool)
_RIM[1:-1, 1:-1] = False


@dataclass(frozen=True, slots=True, eq=False)
class NoiseModel:
    """Correlation of the noise between pixels, and how the variance plane compares with the sky's scatter."""

    #: float64 `(2 L + 1, 2 L + 1)`, centred, 1 at zero lag.
    correlation: NDArray[np.float64]
    #: Measured variance of blank sky over the variance plane's; 1 when the plane is right.
    variance_ratio: float
    n_pixels: int

    @property
    def is_white(self) -> bool:
        """Whether no neighbouring pixels are correlated."""
        return float(np.abs(self.correlation).sum()) < 1.02

    def power(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Noise power per frequency of a `(ny, nx)` grid, rfft2 layout, mean 1; never below `LEAST_POWER`."""
        lag = self.correlation.shape[0] // 2
        grid = np.zeros(size)
        grid[: 2 * lag + 1, : 2 * lag + 1] = self.correlation
        spectrum = fft.rfft2(np.roll(grid, (-lag, -lag), axis=(0, 1))).real
        power: NDArray[np.float32] = np.maximum(spectrum, LEAST_POWER).astype(np.float32)
        return power

    def point_source_factor(self, psf: NDArray[np.floating]) -> float:
        """By how much the flux error of a PSF fit, Σ P I / Σ P², exceeds what the variance plane gives when
        pixels are taken as independent. `psf` is a stamp `(size, size)` of any sum; 1 for white noise.
        """
        stamp = psf.astype(np.float64)
        spread = float(np.sum(stamp * fftconvolve(stamp, self.correlation, mode="same")))
        return float(np.sqrt(self.variance_ratio * max(spread / float(np.sum(stamp**2)), LEAST_POWER)))


def white_noise() -> NoiseModel:
    """Uncorrelated noise with a variance plane that is right."""
    correlation = np.zeros((2 * MAX_LAG_PX + 1, 2 * MAX_LAG_PX + 1))
    correlation[MAX_LAG_PX, MAX_LAG_PX] = 1.0
    return NoiseModel(correlation, 1.0, 0)


def measure_noise(
    image: Float32Image,
    variance: Float32Image,
    sky: NDArray[np.bool_],
    light: NDArray[np.float64] | None = None,
) -> NoiseModel:
    """Correlation and strength of the noise of a background-subtracted `image` on `sky` pixels (True: blank).

    Values are divided by the square root of `variance`, clipped, and multiplied with their neighbours.
    `light` is taken off their covariance, as `shared_light` found it, unless it claims most of the variance.
    What is left at the largest lags is background and more faint sources, common to all lags, and is taken
    off. Lags that do not stand out from their own error are 0.
    """
    if np.count_nonzero(sky) < MIN_PIXELS:
        return white_noise()
    pulls, usable = _pulls(*(_bands(plane) for plane in (image, variance, sky)))
    if np.count_nonzero(usable) < MIN_PIXELS:  # most of the sky has one value: no noise is to be seen
        return white_noise()
    covariance, counts = _covariance(pulls, pulls, usable)
    centre = MAX_LAG_PX
    if light is not None and light[centre, centre] < MOST_SHARED * covariance[centre, centre]:
        covariance -= light
    covariance -= max(float(covariance[_RIM].mean()), 0.0)
    strength = covariance[centre, centre]
    correlation = covariance / strength
    insignificant = np.abs(correlation) < 4 / np.sqrt(np.maximum(counts, 1))
    correlation[insignificant | _RIM] = 0.0
    correlation[centre, centre] = 1.0
    return NoiseModel(correlation, float(strength / _CLIPPED_VARIANCE), int(np.count_nonzero(usable)))


def shared_light(
    images: Sequence[Float32Image],
    variances: Sequence[Float32Image],
    sky: NDArray[np.bool_],
    fwhm_px: Sequence[float],
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """The covariance that faint sources give the sky of each of two frames, for `measure_noise`.

    Sources too faint to be found stand in both frames, and noise does not: what pixels of one frame have in
    common with those of the other is light. `images` are background-subtracted, on one grid; both are blank
    on `sky`. The covariance between the frames is that of the two PSFs, and is made each frame's own by the
    ratio of Gaussians of `fwhm_px`; of the frames' strengths only the ratio is read off their own largest
    lags, which may hold more than shared light. None for both where none stands out.
    """
    if not _may_share(images, variances, sky):
        return None, None
    one, other = (
        _pulls(*(_bands(plane) for plane in (image, variance, sky)))
        for image, variance in zip(images, variances, strict=True)
    )
    usable = one[1] & other[1]
    pulls = [np.where(usable, each, np.float32(0)) for each, _ in (one, other)]
    shared, counts = _covariance(pulls[0], pulls[1], usable)
    if shared[_RIM].mean() < SHARED_SIGMA / np.sqrt(max(float(counts[_RIM].sum()), 1.0)):
        return None, None
    mixed = sum(each**2 for each in fwhm_px) / 2
    light = [shared * _wider(each**2, mixed) for each in fwhm_px]
    strengths = [
        _covariance(each, each, usable)[0][_RIM].mean() / shape[_RIM].mean()
        for each, shape in zip(pulls, light, strict=True)
    ]
    if min(strengths) <= 0:
        return None, None
    ratio = np.sqrt(strengths[0] / strengths[1])
    return light[0] * ratio, light[1] / ratio


def _may_share(
    images: Sequence[Float32Image], variances: Sequence[Float32Image], sky: NDArray[np.bool_]
) -> bool:
    """Whether a ninth of the pixels has anything in common between two frames: mostly there is nothing."""
    every = (slice(None, None, 3), slice(None, None, 3))
    if np.count_nonzero(sky[every]) < MIN_PIXELS:
        return False
    one, other = (
        _pulls(image[every], variance[every], sky[every])
        for image, variance in zip(images, variances, strict=True)
    )
    n = max(int(np.count_nonzero(one[1] & other[1])), 1)
    return bool(float(np.vdot(one[0], other[0])) / n > max(LEAST_SHARED, PROBE_SIGMA / np.sqrt(n)))


def _wider(square_px: float, than_px: float) -> NDArray[np.float64]:
    """Autocovariance of a Gaussian PSF over that of another, by lag; both by the square of their FWHM."""
    y, x = np.indices((2 * MAX_LAG_PX + 1, 2 * MAX_LAG_PX + 1)) - MAX_LAG_PX
    exponent = SHARPNESS_LEFT * 2 * np.log(2) * (x * x + y * y) * (1 / than_px - 1 / square_px)
    return np.asarray(np.exp(np.clip(exponent, -MOST_WIDER, MOST_WIDER)))


def _pulls(
    image: Float32Image, variance: Float32Image, sky: NDArray[np.bool_]
) -> tuple[Float32Image, NDArray[np.bool_]]:
    """Sky values in sigma about their median, 0 where they are not usable, and which are."""
    pulls = np.zeros(image.shape, np.float32)
    np.divide(image, np.sqrt(variance, where=sky, out=np.ones_like(variance)), out=pulls, where=sky)
    blank = pulls[sky]
    scatter = 1.4826 * float(fast_median(np.abs(blank - fast_median(blank))))
    usable = sky & (np.abs(pulls) < CLIP_SIGMA * scatter)
    if usable.any():
        pulls -= fast_median(pulls[usable])
    return np.where(usable, pulls, np.float32(0)), usable


def _bands(plane: NDArray[Any]) -> NDArray[Any]:
    """Evenly spaced bands of rows, about `ENOUGH_PIXELS` in all; a seam between bands costs a few pairs
    only.
    """
    every = plane.size // ENOUGH_PIXELS
    if every < 2:
        return plane
    rows = np.arange(plane.shape[0])
    return np.asarray(plane[(rows // BAND_PX) % every == 0])


def _covariance(
    one: Float32Image, other: Float32Image, usable: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean product of pixels of `one` with those of `other` at each lag where both are usable, the mean of a
    lag and its opposite, and how many pairs there were.
    """
    lag = MAX_LAG_PX
    covariance = np.zeros((2 * lag + 1, 2 * lag + 1))
    counts = np.zeros_like(covariance)
    # flat, with zeros between the rows: a lag is then one step along it, and no plane is copied for it
    weights = _with_gaps(usable, lag)
    flat = _with_gaps(one, lag)
    others = flat if one is other else _with_gaps(other, lag)
    for dy in range(lag + 1):
        for dx in range(-lag, lag + 1):
            step = dy * (one.shape[1] + lag) + dx
            if step < 0:
                continue
            near, far = slice(0, flat.size - step), slice(step, flat.size)
            n = float(np.vdot(weights[near], weights[far]))
            product = float(np.vdot(flat[near], others[far]))
            if one is not other:
                product = (product + float(np.vdot(flat[far], others[near]))) / 2
            for sign in (1, -1):
                covariance[lag + sign * dy, lag + sign * dx] = product / max(n, 1.0)
                counts[lag + sign * dy, lag + sign * dx] = n
    return covariance, counts


def _with_gaps(plane: NDArray[Any], gap: int) -> NDArray[np.float32]:
    """A plane as one row of float32, with `gap` zeros behind each of its rows."""
    padded = np.zeros((plane.shape[0], plane.shape[1] + gap), np.float32)
    padded[:, : plane.shape[1]] = plane
    return padded.ravel()
