"""How good a stacked reference is: coverage, width and depth.

Owns the grade's numbers; never decides what they are good for.
"""

from dataclasses import dataclass

import numpy as np

from astrid_workers.differencing.measure import Measured, measure_frame
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.frame import Frame
from astrid_workers.imaging.combine import Combined
from astrid_workers.imaging.noise_model import measure_noise

#: The limiting flux of the grade is this many sigma.
DEPTH_SIGMA = 5.0


@dataclass(frozen=True, slots=True)
class Grade:
    """How good a reference is."""

    n_frames: int
    #: Share of the grid with at least one frame, and with all of them.
    coverage: float
    full_coverage: float
    fwhm_px: float
    #: 5-sigma flux of a point source in the reference's unit, and its magnitude where a zero point is known.
    depth_flux: float
    depth_mag: float | None
    #: By how much the reference is deeper than the frame whose grid it has.
    gain_mag: float


def grade_reference(frame: Frame, stack: Combined, n_frames: int, measured: Measured, gain: float) -> Grade:
    """The grade of a stack of `n_frames` that counts `gain` electrons per electron of the `measured` base."""
    made = measure_frame(frame, DifferenceOptions())
    depth, before = point_source_limit(made), gain * point_source_limit(measured)
    zero_point = frame.facts.zero_point_mag
    return Grade(
        n_frames=n_frames,
        coverage=float(np.mean(stack.n_used > 0)),
        full_coverage=float(np.mean(stack.n_used == n_frames)),
        fwhm_px=made.psf.fwhm_px,
        depth_flux=depth,
        depth_mag=None if zero_point is None else zero_point - 2.5 * float(np.log10(depth)),
        gain_mag=2.5 * float(np.log10(before / depth)),
    )


def point_source_limit(measured: Measured) -> float:
    """5-sigma flux of a point source on blank sky, in the frame's unit; correlated noise counts as it is."""
    sky = ~(measured.background.sources | measured.unusable)
    noise = measure_noise(measured.image, measured.variance, sky)
    psf = measured.psf.stamp.astype(float)
    independent = float(np.sqrt(np.median(measured.variance[sky]) / np.sum(psf**2)))
    return DEPTH_SIGMA * independent * noise.point_source_factor(psf)
