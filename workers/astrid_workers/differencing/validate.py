"""Whether a difference can be believed.

Owns the statistics of a difference on empty sky and the rules they must keep; never changes a pixel, and
never refuses anything by itself: it says what is wrong, in sentences with numbers.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from astrid_workers.differencing.products import Candidates, Difference, Validation
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.fast_median import fast_median
from astrid_workers.imaging.grow import grow
from astrid_workers.mask import MaskBit

#: What the score must keep on empty sky.
MAX_MEDIAN_SIGMA = 0.1
SCATTER_RANGE = (0.97, 1.03)
MAX_TAIL_RATIO = 1.5
#: Share of the frame that must have a score, and of stars' power that may be left.
MIN_VALID_FRACTION = 0.3
MAX_RESIDUAL_POWER = 0.2
#: Light under the score's kernel, in sigma, above which a pixel is not empty sky.
EMPTY_SIGMA = 3.0
#: |score| beyond which a sample belongs to a source of the difference; their surroundings are left out.
SOURCE_SIGMA = 5.0
#: More samples than this add nothing: they are thinned regularly.
ENOUGH_SAMPLES = 400_000
#: Sky samples below which nothing is said.
MIN_SAMPLES = 500


def validate_difference(difference: Difference, candidates: Candidates | None = None) -> Validation:
    """The numbers of a difference and whether they keep the rules. What too little sky allows to measure is
    None.
    """
    sky = sky_samples(difference)
    n = int(np.count_nonzero(sky))
    every = max(1, n // ENOUGH_SAMPLES)
    values = difference.score[sky][::every].astype(np.float64)
    enough = n >= MIN_SAMPLES
    median = float(np.median(values)) if enough else None
    scatter = robust_scatter(values) if enough else None
    tail = tail_ratio(values) if enough else None
    noise = robust_scatter(difference.difference[sky][::every]) if enough else None
    power = difference.numbers.get("residual_power")
    valid = float(np.isfinite(difference.score).mean())
    reasons = _broken_rules(median, scatter, tail, valid, power if isinstance(power, float) else None)
    moments = _moments(values) if enough else (None, None, None)
    return Validation(
        passed=not reasons,
        reasons=reasons,
        noise_level=noise,
        dynamic_range=float(np.nanmax(np.abs(difference.difference)) / noise) if noise else None,
        saturation_fraction=float(((difference.mask & np.uint32(MaskBit.SATURATED)) != 0).mean()),
        artifact_count=None if candidates is None else sum(c.is_doubted for c in candidates.items),
        mean=moments[0],
        median=median,
        std=scatter,
        minimum=float(values.min()) if enough else None,
        maximum=float(values.max()) if enough else None,
        skewness=moments[1],
        kurtosis=moments[2],
        tail_ratio=tail,
        spatial_correlation=_neighbour_correlation(difference.difference, sky) if enough else None,
        residual_power=power if isinstance(power, float) else None,
        valid_fraction=valid,
        n_sky_samples=n,
    )


def sky_samples(difference: Difference) -> NDArray[np.bool_]:
    """Pixels of empty sky: measured, away from edges, from light that was subtracted and from what was
    found.
    """
    sky = np.isfinite(difference.score) & (np.abs(difference.subtracted_light) < EMPTY_SIGMA)
    sky &= (difference.mask & np.uint32(MaskBit.EDGE)) == 0
    strong = np.abs(np.nan_to_num(difference.score)) > SOURCE_SIGMA
    if strong.any():
        reach = int(np.ceil(2 * max(difference.fwhm_science_px, difference.fwhm_reference_px)))
        sky &= ~grow(strong, reach)
    return np.asarray(sky)


def robust_scatter(values: NDArray[np.floating]) -> float:
    """1.4826 × median absolute deviation about the median."""
    return float(1.4826022 * fast_median(np.abs(values - fast_median(values))))


def tail_ratio(values: NDArray[np.floating], beyond: float = 3.0) -> float:
    """Share of |values| > `beyond` over what a standard Gaussian has."""
    return float(np.mean(np.abs(values) > beyond) / special.erfc(beyond / np.sqrt(2)))


def _moments(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, skewness and excess kurtosis."""
    mean = float(values.mean())
    centred = values - mean
    variance = float((centred**2).mean())
    return mean, float((centred**3).mean() / variance**1.5), float((centred**4).mean() / variance**2 - 3)


def _neighbour_correlation(image: Float32Image, sky: NDArray[np.bool_]) -> float | None:
    """Correlation of horizontally neighbouring pixels: 0 for a whitened difference."""
    every = max(1, image.size // ENOUGH_SAMPLES)
    rows, sky = image[::every], sky[::every]
    both = sky[:, 1:] & sky[:, :-1]
    if np.count_nonzero(both) < MIN_SAMPLES:
        return None
    left, right = rows[:, :-1][both].astype(float), rows[:, 1:][both].astype(float)
    return float(np.corrcoef(left, right)[0, 1])


def _broken_rules(
    median: float | None, scatter: float | None, tail: float | None, valid: float, power: float | None
) -> tuple[str, ...]:
    broken = []
    if median is not None and abs(median) > MAX_MEDIAN_SIGMA:
        broken.append(
            f"the score's median on empty sky is {median:+.3f} sigma, at most ±{MAX_MEDIAN_SIGMA} is accepted"
        )
    if scatter is not None and not SCATTER_RANGE[0] <= scatter <= SCATTER_RANGE[1]:
        broken.append(
            f"the score scatters {scatter:.3f} on empty sky, {SCATTER_RANGE[0]} to {SCATTER_RANGE[1]} is "
            "accepted"
        )
    if tail is not None and tail > MAX_TAIL_RATIO:
        broken.append(
            f"|score| > 3 is {tail:.2f} times as frequent as for a Gaussian, at most {MAX_TAIL_RATIO} is "
            "accepted"
        )
    if valid < MIN_VALID_FRACTION:
        broken.append(
            f"{100 * valid:.0f} % of the frame was measured, {100 * MIN_VALID_FRACTION:.0f} % needed"
        )
    if power is not None and power > MAX_RESIDUAL_POWER:
        broken.append(
            f"{100 * power:.0f} % of the stars' power is left, at most {100 * MAX_RESIDUAL_POWER:.0f} % "
            "is accepted"
        )
    return tuple(broken)
