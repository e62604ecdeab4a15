"""What a detector makes of light: photon noise, read-out noise, saturation and defects.

Owns noise and defects of one exposure; never knows what the light came from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image, Uint32Image
from astrid_workers.mask import MaskBit
from astrid_workers.sky.blemishes import bled

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Detector:
    """Sky and electronics of one frame, in electrons per pixel."""

    sky_e: float
    #: Added to the sky from the left edge to the right.
    gradient_e: float
    read_noise_e: float
    saturation_e: float

    @property
    def variance(self) -> float:
        """Noise variance of blank sky at the middle of the frame."""
        return self.sky_e + self.read_noise_e**2


@dataclass(frozen=True, slots=True, eq=False)
class Exposed:
    """Pixels (NaN where lost), variance, mask, where cosmic rays struck, and the noiseless sky."""

    image: Float32Image
    variance: Float32Image
    mask: Uint32Image
    cosmic_rays: NDArray[np.bool_]
    background: Float32Image


def expose(
    rng: np.random.Generator,
    light: Float64Array,
    detector: Detector,
    n_cosmic_rays: int,
    n_bad_columns: int,
    nan_block_px: int,
    *,
    pattern: Float64Array | None = None,
    hot_e: Float64Array | None = None,
    bleeds: bool = False,
) -> Exposed:
    """Draw one exposure of `light` (expected electrons per pixel, sky not included).

    `pattern` is added to the sky, `hot_e` to what was drawn, without noise of its own; where `bleeds`, charge
    above saturation runs along its column.
    """
    ny, nx = light.shape
    ramp = detector.gradient_e * (np.arange(nx) / max(nx - 1, 1) - 0.5)
    background = np.broadcast_to(detector.sky_e + ramp, light.shape)
    if pattern is not None:
        background = background + pattern
    expected = np.maximum(light + background, 0.0)
    rays = _cosmic_rays(rng, light.shape, n_cosmic_rays)
    drawn = rng.poisson(expected) + rng.normal(0.0, detector.read_noise_e, light.shape) + rays
    if hot_e is not None:
        drawn += hot_e
    if bleeds:
        drawn = bled(drawn, detector.saturation_e)
    mask = np.zeros(light.shape, np.uint32)
    saturated = drawn >= detector.saturation_e
    image = np.minimum(drawn, detector.saturation_e)
    mask[_grown(saturated)] |= np.uint32(MaskBit.SATURATED)
    for column in rng.choice(nx, n_bad_columns, replace=False):
        image[:, column] = rng.uniform(0, 5) * detector.sky_e
        mask[:, column] |= np.uint32(MaskBit.BAD_PIXEL)
    if nan_block_px:
        top, left = (int(rng.integers(0, max(n - nan_block_px, 1))) for n in (ny, nx))
        image[top : top + nan_block_px, left : left + nan_block_px] = np.nan
    variance = np.maximum(expected, 1.0) + detector.read_noise_e**2
    return Exposed(
        image.astype(np.float32),
        variance.astype(np.float32),
        mask,
        rays > 0,
        background.astype(np.float32),
    )


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel more on every side."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    tall = wide.copy()
    wide[:, 1:] |= tall[:, :-1]
    wide[:, :-1] |= tall[:, 1:]
    return wide


def _cosmic_rays(rng: np.random.Generator, shape: tuple[int, int], n: int) -> Float64Array:
    """Straight tracks of one to a dozen pixels, sharp as the pixel, 300 to 10 000 electrons each pixel."""
    rays = np.zeros(shape)
    for _ in range(n):
        length = 1 + int(rng.exponential(3.0))
        angle = rng.uniform(0, 2 * np.pi)
        steps = np.arange(length)
        rows = np.rint(rng.uniform(0, shape[0]) + steps * np.sin(angle)).astype(int)
        columns = np.rint(rng.uniform(0, shape[1]) + steps * np.cos(angle)).astype(int)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        charge = np.exp(rng.uniform(np.log(300), np.log(10_000))) * rng.uniform(0.5, 1.5, length)
        rays[rows[inside], columns[inside]] = charge[inside]
    return rays
