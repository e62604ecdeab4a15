"""The score: a statistic divided by all the noise that it has, zero and of scatter one on empty sky.

Owns the noise terms beyond photons (registration, model errors), the removal of what background is left, and
the check on sky samples. The factor that made the scatter one is handed out, never applied in silence.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from astrid_workers.differencing.model_error import (
    POINT,
    ModelError,
    light_around,
    measure_model_error,
    sharp_light,
)
from astrid_workers.differencing.ring_error import RADII_FWHM, measure_ring_error
from astrid_workers.differencing.tiles import Subtracted
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.fast_median import fast_median

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]
Places = tuple[Floats, Floats]

#: Sky samples below which neither scatter nor background is measured.
MIN_SAMPLES = 200
#: Side of the cells in which the score's own median is taken off, pixels; and smaller ones, while the score
#: scatters more on empty sky than its noise by so much: fringes, steps between amplifiers, moonlight.
MEDIAN_BOX_PX, FINER_BOXES_PX, UNEVEN = 96, (48, 24), 1.1
#: Point sources that tell how wrong wings are around the strongest: one of so many, and at least so many; of
#: these, where none around has this share of its light.
STRONGEST, MIN_STRONGEST, ALONE = 8, 16, 0.05
#: Rows that are divided by their noise together: bounds what is computed on the way.
_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """A score image with the numbers that made it."""

    #: Signed significance in sigma, float32, finite everywhere (no mask applied).
    score: Float32Image
    #: 1-sigma error of the flux of a point source at each pixel, in science flux.
    flux_error: Float32Image
    #: Light that was subtracted, in sigma of the score.
    subtracted_light: Float32Image
    #: Background left in the difference, in its unit per pixel.
    background: Float32Image
    #: Scatter on empty sky before it was divided out.
    noise_scale: float
    #: Relative error of the models at bright stars that the score takes into account.
    model_error: float
    #: Largest residual in rings around bright sources, relative to their light, that it takes into account.
    wing_error: float
    #: Scatter of the score at stars before that; None with too few stars.
    star_scatter: float | None
    n_sky_samples: int


def make_score(
    parts: Subtracted,
    sky: BoolImage,
    *,
    stars: Places,
    others: Places,
    bright: Places,
    bad: BoolImage,
    fwhm_px: float,
    overfit: float = 1.0,
    are_constant: bool = True,
) -> Score:
    """Divide the statistic by its noise.

    `sky` marks empty, measured pixels; `stars` are x and y of the sources at which the models' errors are
    read off, constant ones unless `are_constant` says that these were too few; `others` are sources of which
    some may have changed, mostly galaxies; `bright` are all that may be bright enough for those errors to
    matter; `bad` pixels are no evidence. The photons of both frames, the registration's residual and the
    models' error add in quadrature. The planes of `parts` but the difference and its variance are used up:
    what comes back stands in their memory.
    """
    level = _local_median(parts, sky, MEDIAN_BOX_PX)
    statistic, photons = parts.statistic, parts.score_variance
    statistic -= level
    photons += parts.registration_variance
    noise_scale, n_samples = _scatter(statistic, photons, sky)
    for box_px in FINER_BOXES_PX:
        if noise_scale > UNEVEN:
            finer = _local_median(parts, sky, box_px)
            statistic -= finer
            level += finer
            noise_scale, n_samples = _scatter(statistic, photons, sky)
    photons *= np.float32(noise_scale**2)
    light = sharp_light(parts.subtracted, parts.kernels.score_profile.mean(axis=(0, 1)), fwhm_px)
    samples = [
        (stars, _at(parts.subtracted, stars)),
        _strongest_points(parts.subtracted, light, bright, fwhm_px),
    ]
    rings = measure_ring_error(statistic, photons, samples, bad, fwhm_px)
    # a galaxy washes out what is wrong around each point of it as far as it is broad
    photons += rings.around(sky.shape, bright, np.minimum(_at(parts.subtracted, bright), _at(light, bright)))
    error = measure_model_error(
        statistic,
        photons,
        light,
        stars,
        bad,
        fwhm_px,
        overfit,
        subtracted=parts.subtracted,
        others=others,
        are_constant=are_constant,
    )
    around = light_around(parts.subtracted, fwhm_px) if error.of_broad < 1 else light
    flux_error, background = parts.registration_variance, level
    per_level = _flux_per_level(parts)
    for start in range(0, sky.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        sigma = _sigma(photons[rows], light[rows], around[rows], error)
        background[rows] *= per_level / parts.response[rows]
        np.divide(sigma, parts.response[rows], out=flux_error[rows])
        statistic[rows] /= sigma
        parts.subtracted[rows] /= sigma
    return Score(
        statistic,
        flux_error,
        parts.subtracted,
        background,
        noise_scale,
        error.typical,
        float(rings.error.max()),
        error.scatter_before,
        n_samples,
    )


def _sigma(
    photons: Float32Image, light: Float32Image, around: Float32Image, error: ModelError
) -> Float32Image:
    """Noise of the statistic: of photons, and of models that err by a share of the sharp light."""
    significance = np.asarray(light / np.sqrt(photons), np.float32)
    of_models = error.at(significance, light, around) * light
    return np.asarray(np.sqrt(photons + of_models**2), np.float32)


def _strongest_points(
    subtracted: Float32Image, light: Float32Image, bright: Places, fwhm_px: float
) -> tuple[Places, Floats]:
    """Of the `bright` the strongest that are no galaxies and stand alone as far as rings reach, and what was
    subtracted at each.
    """
    strength = _at(subtracted, bright)
    points = np.flatnonzero(_at(light, bright) > POINT * strength)
    strongest = points[np.argsort(-strength[points])][: max(MIN_STRONGEST, points.size // STRONGEST)]
    places = np.stack(bright, axis=1)
    around = cKDTree(places).query_ball_point(places[strongest], RADII_FWHM[-1] * fwhm_px)
    alone = [
        one
        for one, near in zip(strongest, around, strict=True)
        if np.count_nonzero(strength[near] > ALONE * strength[one]) == 1
    ]
    return (bright[0][alone], bright[1][alone]), strength[alone]


def _at(image: Float32Image, places: Places) -> Floats:
    """Values at the nearest pixels, float64."""
    columns = np.clip(np.rint(places[0]).astype(int), 0, image.shape[1] - 1)
    rows = np.clip(np.rint(places[1]).astype(int), 0, image.shape[0] - 1)
    return np.asarray(image[rows, columns], float)


def _local_median(parts: Subtracted, sky: BoolImage, box_px: int) -> Float32Image:
    """Smooth median of the statistic on empty sky in cells of `box_px`: the background that neither frame's
    own mesh could see.
    """
    pulls = np.sqrt(parts.score_variance)
    np.divide(parts.statistic, pulls, out=pulls)
    if np.count_nonzero(sky) < MIN_SAMPLES:
        return np.zeros_like(pulls)
    box = min(box_px, max(32, min(sky.shape) // 2))
    cells = _cell_medians(pulls, sky, box)
    level = _smooth_map(cells, sky.shape)
    level *= np.sqrt(parts.score_variance, out=pulls)
    return level


def _cell_medians(pulls: Float32Image, sky: BoolImage, box: int) -> NDArray[np.float64]:
    """Median per cell; cells with too little sky take the frame's."""
    rows, columns = (max(1, round(side / box)) for side in sky.shape)
    edges_y = np.linspace(0, sky.shape[0], rows + 1).astype(int)
    edges_x = np.linspace(0, sky.shape[1], columns + 1).astype(int)
    frame_median = float(fast_median(pulls[sky]))
    cells = np.full((rows, columns), frame_median)
    for i in range(rows):
        for j in range(columns):
            window = (slice(edges_y[i], edges_y[i + 1]), slice(edges_x[j], edges_x[j + 1]))
            values = pulls[window][sky[window]]
            if values.size > max(MIN_SAMPLES, 0.05 * box * box):
                cells[i, j] = fast_median(values)
    return cells


def _smooth_map(cells: NDArray[np.float64], shape: tuple[int, ...]) -> Float32Image:
    """Cells interpolated to pixels, linearly between their middles, constant beyond the outermost."""
    y = (np.arange(shape[0]) + 0.5) / shape[0] * cells.shape[0] - 0.5
    x = (np.arange(shape[1]) + 0.5) / shape[1] * cells.shape[1] - 0.5
    along_y = _linear_weights(y, cells.shape[0])
    along_x = _linear_weights(x, cells.shape[1])
    return along_y.astype(np.float32) @ (cells @ along_x.T).astype(np.float32)


def _linear_weights(position: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    position = np.clip(position, 0, n - 1)
    low = np.minimum(position.astype(int), max(n - 2, 0))
    weights = np.zeros((len(position), n))
    rows = np.arange(len(position))
    weights[rows, low] = 1 - (position - low)
    if n > 1:
        weights[rows, low + 1] += position - low
    return weights


def _flux_per_level(parts: Subtracted) -> np.float32:
    """A constant level b of the difference raises statistic / response by b × this: the sum of profile over
    peak.
    """
    kernels = parts.kernels
    profile = kernels.score_profile[0, 0]
    return np.float32(1.0 / max(float(profile.sum()), 1e-6))


def _scatter(statistic: Float32Image, variance: Float32Image, sky: BoolImage) -> tuple[float, int]:
    """Robust scatter of the score on empty sky, 1 when there is too little of it."""
    n = int(np.count_nonzero(sky))
    if n < MIN_SAMPLES:
        return 1.0, n
    every = max(1, sky.shape[0] // 700)
    values = (statistic[::every] / np.sqrt(variance[::every]))[sky[::every]]
    scatter = 1.4826022 * float(fast_median(np.abs(values - fast_median(values))))
    return (scatter if scatter > 0 else 1.0), n
