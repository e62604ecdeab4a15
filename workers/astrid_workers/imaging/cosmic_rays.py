"""Cosmic rays in a single frame.

Owns the Laplacian test of L.A.Cosmic (van Dokkum 2001), arranged so that only the Laplacian looks at every
pixel; all medians are taken at the few pixels that stand out. Never repairs a pixel.

Unlike there the Laplacian is not sampled twice as finely and clipped at zero. Clipped, it takes a mere slope
for an edge: with FWHM above 3 px the flanks of every bright star are rays then (by 0.04 of its peak, where
photon noise is less). Unclipped, no pixel of a star is, of any width. What it misses beside a brighter pixel
of the same ray is found as that one's neighbour.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.bad_surroundings import means_about
from astrid_workers.imaging.grow import grow, grow_diamond
from astrid_workers.imaging.noise import regular_sample, robust_median_and_scatter

BoolImage = NDArray[np.bool_]
Float32Array = NDArray[np.float32]
Indices = NDArray[np.intp]

#: Significance of a ray's core pixel, in sigmas.
CORE_SIGMA = 4.5
#: Significance, against the local median, of pixels that touch a core.
NEIGHBOUR_SIGMA = 2.0
#: How much sharper than the sharpest star of the frame's width a pixel must be: widths vary over a frame.
SHARPER = 1.35
#: Moffat index of the sharpest stars that are spared.
_BETA = 2.5
#: Scatter of a pixel of white noise less the mean of four, in units of the scatter of one.
_HEIGHT_NOISE = 1.118
#: Scatter of the median of nine pixels, in units of one.
_MEDIAN_OF_NINE = 0.41
#: Rows whose heights are computed together: keeps the working set inside the processor's cache.
_ROWS = 32
#: Pixels examined together: bounds the memory of crowded frames.
_BATCH = 40_000


def find_cosmic_rays(
    image: Float32Image,
    variance: Float32Image,
    psf_fwhm_px: float,
    *,
    unusable: BoolImage | None = None,
    core_sigma: float = CORE_SIGMA,
) -> BoolImage:
    """True where a cosmic ray, a hot pixel or anything else sharper than the PSF stands.

    `image` and `variance` are float32 `[y, x]`, in one unit and its square (variance +inf where nothing was
    measured); the sky may be in it or not. `unusable` pixels (saturated stars among them) are not flagged,
    do not make their neighbours look sharp, and shield the flanks of what is saturated.
    With L the height of a pixel over the mean of the four that touch it and F its fine structure (median of
    3 × 3 less median of 7 × 7), a star of FWHM `psf_fwhm_px` has L ≤ c F, c from a Moffat profile in its
    worst position. Flagged: L − 1.35 c F above `core_sigma` sigmas, and what touches it and stands out of its
    surroundings by two. Raises ValueError unless the width is positive and finite.
    """
    if not (np.isfinite(psf_fwhm_px) and psf_fwhm_px > 0):
        msg = f"a PSF width must be positive, got {psf_fwhm_px}"
        raise ValueError(msg)
    bad = ~np.isfinite(variance) if unusable is None else unusable | ~np.isfinite(variance)
    found = np.zeros(image.shape, bool)
    if bad.all():
        return found
    typical = np.float32(robust_median_and_scatter(regular_sample(image, ~bad))[0])
    filled = _filled(image, bad, typical)
    bad = bad | _shoulders(bad, image, filled, typical, psf_fwhm_px)
    padded = np.pad(filled, 4, mode="reflect")
    rows, columns, heights = _what_stands_out(padded, variance, bad, core_sigma)
    contrast = SHARPER * star_contrast(round(float(psf_fwhm_px), 2))
    least = core_sigma * float(np.hypot(_HEIGHT_NOISE, contrast * _MEDIAN_OF_NINE))
    for start in range(0, rows.size, _BATCH):
        some = slice(start, start + _BATCH)
        y, x = rows[some], columns[some]
        excess = heights[some] - contrast * np.maximum(_fine_structure(padded, y, x), 0)
        core = excess > least * np.sqrt(variance[y, x])
        found[y[core], x[core]] = True
    return _with_neighbours(found, padded, variance, bad)


def _filled(image: Float32Image, bad: BoolImage, typical: np.float32) -> Float32Image:
    """Bad pixels at what surrounds them, unless they are brighter: a cut-out core would sharpen its rim."""
    if not bad.any():
        return image
    filled = image.copy()
    surroundings = means_about(image, bad)
    filled[bad] = np.fmax(image[bad], np.where(np.isnan(surroundings), typical, surroundings))
    return filled


def _shoulders(
    bad: BoolImage, image: Float32Image, filled: Float32Image, typical: np.float32, psf_fwhm_px: float
) -> BoolImage:
    """The flanks of what was cut off at the top: beside a plateau, a smooth profile looks sharp."""
    plateaus: BoolImage = bad & (filled == image) & (filled > typical)
    plateaus = _opened(plateaus)  # not hot pixels, not bad columns
    if not plateaus.any():
        return plateaus
    return grow_diamond(plateaus, int(np.ceil(psf_fwhm_px)) + 1)


def _opened(mask: BoolImage) -> BoolImage:
    """What squares of 3 × 3 fit into; nothing lies outside the image."""
    if not mask.any():
        return mask
    kept = ~grow(~np.pad(mask, 1), 1)[1:-1, 1:-1]
    return grow(kept, 1)


def _what_stands_out(
    padded: Float32Image, variance: Float32Image, bad: BoolImage, core_sigma: float
) -> tuple[Indices, Indices, Float32Array]:
    """Rows and columns of good pixels whose height over their neighbours is above `core_sigma` sigmas, and
    that height; `padded` has a margin of 4.
    """
    found = []
    for start in range(0, len(variance), _ROWS):
        rows = slice(start, min(start + _ROWS, len(variance)))
        height = _heights(padded[rows.start + 3 : rows.stop + 5, 3:-3])
        is_high = height * np.abs(height) > np.float32(core_sigma**2) * variance[rows]
        y, x = np.nonzero(is_high & ~bad[rows])
        found.append((y + start, x, height[y, x]))
    y, x, heights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return y, x, heights


def _heights(padded: Float32Image) -> Float32Image:
    """Each pixel less the mean of the four that touch it; `padded` has one more on every side."""
    height = padded[:-2, 1:-1] + padded[2:, 1:-1]
    height += padded[1:-1, :-2]
    height += padded[1:-1, 2:]
    height *= np.float32(-1 / 4)
    height += padded[1:-1, 1:-1]
    return height


def is_sharper(
    image: Float32Image, x: NDArray[np.float64], y: NDArray[np.float64], fwhm_px: float
) -> BoolImage:
    """Whether the brightest pixel within one of each place is sharper than a star of `fwhm_px` can be.

    `image` is background-subtracted. For sources well above the noise; places must lie inside the image.
    """
    padded = np.pad(image, 5, mode="reflect")
    row, column = np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)
    squares = _gathered(padded, row + 1, column + 1, 1)
    top = np.argmax(squares, axis=1)
    row, column = row + 1 + top // 3 - 1, column + 1 + top % 3 - 1
    patches = _gathered(padded, row, column, 1)
    height = patches[:, 4] - patches[:, 1::2].mean(axis=1)
    contrast = SHARPER * star_contrast(round(float(fwhm_px), 2))
    sharper: BoolImage = height > contrast * np.maximum(_fine_structure(padded, row, column), 0)
    return sharper


@lru_cache(maxsize=64)
def star_contrast(psf_fwhm_px: float) -> float:
    """Largest L / F (as `find_cosmic_rays` has them) that a star of this width reaches, over all positions of
    its centre in the pixel.
    """
    alpha = psf_fwhm_px / (2 * np.sqrt(2 ** (1 / _BETA) - 1))
    steps = np.arange(-8, 9, dtype=np.float64)
    worst = 0.0
    for dy in (0.0, 0.25, 0.5):
        for dx in (0.0, 0.25, 0.5):
            r2 = (steps[None, :] - dx) ** 2 + (steps[:, None] - dy) ** 2
            star = ((1 + r2 / alpha**2) ** -_BETA).astype(np.float32)
            centre = np.array([8])
            fine = float(_fine_structure(star, centre - 4, centre - 4)[0])
            height = float(_heights(star[7:10, 7:10])[0, 0])
            worst = max(worst, height / max(fine, 1e-3))
    return min(worst, 50.0)


def _gathered(padded: Float32Image, y: Indices, x: Indices, radius: int) -> Float32Array:
    """Squares about pixels `y, x` of the unpadded image, one row each; `padded` has a margin of 4."""
    steps = np.arange(-radius, radius + 1)
    offsets = (steps[:, None] * padded.shape[1] + steps[None, :]).ravel()
    centres = (y + 4) * padded.shape[1] + (x + 4)
    values: Float32Array = padded.ravel()[centres[:, None] + offsets[None, :]]
    return values


def _fine_structure(padded: Float32Image, y: Indices, x: Indices) -> Float32Array:
    """Median of 3 × 3 less median of 7 × 7."""
    near = np.partition(_gathered(padded, y, x, 1), 4, axis=1)[:, 4]
    far = np.partition(_gathered(padded, y, x, 3), 24, axis=1)[:, 24]
    return near - far


def _with_neighbours(
    cores: BoolImage, padded: Float32Image, variance: Float32Image, bad: BoolImage
) -> BoolImage:
    """Cores, and twice what touches them and stands out of the median of its surroundings; nothing `bad`."""
    found = cores.copy()
    for _ in range(2):
        y, x = _touching(found)
        kept = ~(found[y, x] | bad[y, x])
        y, x = y[kept], x[kept]
        above = padded[y + 4, x + 4] - np.partition(_gathered(padded, y, x, 2), 12, axis=1)[:, 12]
        out = above > NEIGHBOUR_SIGMA * np.sqrt(variance[y, x])
        found[y[out], x[out]] = True
    return found


def _touching(mask: BoolImage) -> tuple[Indices, Indices]:
    """Rows and columns of the pixels that are True or touch one that is, each once."""
    y, x = np.nonzero(mask)
    steps = np.arange(-1, 2)
    rows = np.clip(y[:, None, None] + steps[:, None], 0, mask.shape[0] - 1)
    columns = np.clip(x[:, None, None] + steps, 0, mask.shape[1] - 1)
    rows, columns = np.divmod(np.unique(rows * mask.shape[1] + columns), mask.shape[1])
    return rows, columns
