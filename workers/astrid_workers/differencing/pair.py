"""One pair of frames, from their own grids to validated candidates.

Owns the order align, difference, extract, validate; never reads, stores or sends anything.
"""

from collections.abc import Callable
from dataclasses import dataclass

from astropy.wcs import WCS

from astrid_workers.differencing.difference import difference
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.products import Candidates, Difference, DifferenceOptions, Validation
from astrid_workers.differencing.validate import validate_difference
from astrid_workers.frame import Float32Image, Frame
from astrid_workers.preprocessing.align import Registration, align

Progress = Callable[[str, float], None]


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

    @property
    def reference_image(self) -> Float32Image:
        """The reference's pixels on the science grid, in its own flux unit."""
        return self.reference.science


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
    tell("align", 0.0)
    aligned = align(science, reference)
    made = difference(
        science,
        aligned.reference,
        options=options,
        progress=lambda step, share: tell(step, 0.2 + 0.7 * share),
    )
    tell("extract sources", 0.9)
    candidates = extract_sources(made, threshold_sigma=options.threshold_sigma, wcs=science.wcs)
    validation = validate_difference(made, candidates)
    tell("done", 1.0)
    return PairResult(science, aligned.reference, aligned.registration, made, candidates, validation)
