"""One pair of frames, from their own grids to validated candidates.

Owns the order align, difference, extract, validate; never reads, stores or sends anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.differencing.difference import difference
from astrid_workers.differencing.direct_hits import direct_reference, direct_science, without_hits
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.measure import sky_of
from astrid_workers.differencing.products import Candidates, Difference, DifferenceOptions, Validation
from astrid_workers.differencing.validate import validate_difference
from astrid_workers.frame import Frame
from astrid_workers.imaging.align import Registration, align, measure_registration, stars_of
from astrid_workers.imaging.out_of_core import movable, set_aside
from astrid_workers.imaging.stars import Stars, frame_fwhm_px

Progress = Callable[[str, float], None]
Floats = NDArray[np.float64]
Mapping = Callable[[Floats, Floats], tuple[Floats, Floats]]

#: Newton steps that invert a map: distortions of a few per cent converge to a thousandth of a pixel.
NEWTON_STEPS = 6


@dataclass(frozen=True, slots=True, eq=False)
class PairResult:
    """What became of a science and a reference frame."""

    science: Frame
    #: The reference on the science grid.
    reference: Frame
    registration: Registration
    difference: Difference
    candidates: Candidates
    validation: Validation

    @property
    def wcs(self) -> WCS | None:
        """Of the science grid."""
        return self.science.wcs


def moved_stars(stars: Stars, to_reference: Mapping, shape: tuple[int, int]) -> Stars:
    """Stars of the reference at their places on the science grid `(ny, nx)`; those that fall outside are left
    out.

    `to_reference` maps science pixels to reference pixels; it is inverted by Newton steps with the Jacobian
    at the frame's centre, which holds for any rotation and scale.
    """
    jacobian = _jacobian(to_reference, shape)
    x, y = np.full(len(stars.x), (shape[1] - 1) / 2), np.full(len(stars.x), (shape[0] - 1) / 2)
    for _ in range(NEWTON_STEPS):
        seen_x, seen_y = to_reference(x, y)
        step = np.linalg.solve(jacobian, np.stack([stars.x - seen_x, stars.y - seen_y]))
        x, y = x + step[0], y + step[1]
    width = stars.fwhm_px / np.sqrt(abs(float(np.linalg.det(jacobian))))
    inside = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0) & (x < shape[1] - 1) & (y < shape[0] - 1)
    return replace(stars, x=x, y=y, fwhm_px=width).only(inside)


def _jacobian(to_reference: Mapping, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Of the map at the middle of the frame, over a hundred pixels."""
    step = 50.0
    cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    x, y = to_reference(np.array([cx - step, cx + step, cx, cx]), np.array([cy, cy, cy - step, cy + step]))
    return np.array([[x[1] - x[0], x[3] - x[2]], [y[1] - y[0], y[3] - y[2]]]) / (2 * step)


def run_pair(
    science: Frame,
    reference: Frame,
    options: DifferenceOptions | None = None,
    progress: Progress | None = None,
) -> PairResult:
    """Align `reference` with `science`, subtract, extract and validate.

    Frames lie on their own grids, calibrated, cosmic rays masked. `progress` is told a step and the share of
    the whole that is done. Raises NothingToDo when the frames do not overlap enough, SubtractionRefused when
    they cannot be matched; both with the numbers.
    """
    options = options or DifferenceOptions()
    tell = progress or (lambda _step, _share: None)
    tell("find stars", 0.0)
    sky = sky_of(science, options)
    reference_stars = stars_of(reference)
    tell("align", 0.1)
    registration = measure_registration(
        science, reference, science_stars=sky.stars, reference_stars=reference_stars
    )
    sky.background.planes.forget()
    set_aside(science)
    moved = movable(align(science, reference, registration).reference)
    set_aside(science, reference, moved)
    made = difference(
        science,
        moved,
        options=options,
        science_sky=sky,
        reference_stars=moved_stars(reference_stars, registration.to_reference, science.shape),
        progress=lambda step, share: tell(step, 0.2 + 0.7 * share),
    )
    tell("extract sources", 0.9)
    found = extract_sources(made, threshold_sigma=options.threshold_sigma, wcs=science.wcs)
    direct = direct_reference(reference, frame_fwhm_px(reference_stars), registration.to_reference)
    candidates = without_hits(found, direct_science(science, made), direct)
    validation = validate_difference(made, candidates)
    tell("done", 1.0)
    return PairResult(science, moved, registration, made, candidates, validation)
