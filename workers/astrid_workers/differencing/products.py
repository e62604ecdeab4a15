"""What a subtraction hands on: options in, difference, candidates and validation out.

Owns these values and their units; never computes a pixel.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from astrid_workers.defaults import ALGORITHM, THRESHOLD_SIGMA
from astrid_workers.frame import Float32Image, Uint32Image
from astrid_workers.imaging.noise_model import NoiseModel, white_noise
from astrid_workers.imaging.photometric_match import PhotometricMatch
from astrid_workers.imaging.psf import Psf

Algorithm = Literal["zogy", "classic", "none"]
Requested = Literal["auto", "zogy", "classic", "none"]
#: A number of the report; None: not measured.
Number = float | int | str | None

#: Flags that say artefact.
ARTEFACT_FLAGS = frozenset(
    {"dipole", "edge", "masked", "saturated", "sharp", "extended", "streak", "stray_light", "glint"}
)
#: Light of the reference under the score's kernel, in sigma of the score, from which a place is on a source:
#: by itself it would be a candidate.
ON_SOURCE_SIGMA = 5.0


@dataclass(frozen=True, slots=True)
class DifferenceOptions:
    """How two frames are subtracted. The defaults are meant to be right for any reasonable pair."""

    #: `auto` picks by measured facts; `none` subtracts without matching PSFs and is there for comparison
    #: only.
    algorithm: Requested = ALGORITHM
    #: Candidates are extrema of the score beyond this many sigma, of either sign.
    threshold_sigma: float = THRESHOLD_SIGMA
    #: Highest polynomial order of the PSF over the frame; fewer stars lower it.
    max_psf_order: int = 2
    #: Highest polynomial order of gain, shift and kernel over the frame; fewer sources lower it.
    max_match_order: int = 2
    #: Side of the core of a tile, pixels; PSF and match are evaluated at each tile's centre.
    tile_px: int = 256
    #: Side of a cell of the background mesh, pixels.
    background_box_px: int = 128
    #: A subtraction is refused when star residuals hold more than this share of the stars' power.
    max_residual_power: float = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class TileKernels:
    """The PSF of the difference and the profile of a source in the score, per tile.

    Arrays are `(tiles_y, tiles_x, size, size)`, float32, with odd `size` and the centre in the middle pixel.
    """

    #: Side of a tile's core, pixels.
    core_px: int
    #: Response of the difference image to a point source of unit science flux; sums to the share of it that
    #: the stamp holds.
    difference_psf: NDArray[np.float32]
    #: 1 at the centre: response of the score to a point source, relative to its peak.
    score_profile: NDArray[np.float32]

    def at(self, x: float, y: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`(difference_psf, score_profile)` of the tile that holds the position."""
        rows, columns = self.difference_psf.shape[:2]
        row = min(max(int(y // self.core_px), 0), rows - 1)
        column = min(max(int(x // self.core_px), 0), columns - 1)
        return self.difference_psf[row, column], self.score_profile[row, column]


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Science minus reference, on the science grid. Images are float32 `[y, x]`, NaN where not measured."""

    #: In the unit and on the flux scale of the science frame.
    difference: Float32Image
    #: Matched-filter significance in sigma, signed; scatter 1 and median 0 on empty sky.
    score: Float32Image
    #: Variance of one pixel of `difference`, unit squared.
    variance: Float32Image
    #: 1-sigma error of the flux of a point source at each pixel; flux = score × flux_error at its peak.
    flux_error: Float32Image
    #: Bits of `MaskBit` of both frames; EDGE near the footprint's edge, INTERPOLATED where values were filled
    #: in.
    mask: Uint32Image
    #: What the score was before masking, for telling true extrema from those that a mask's edge makes.
    unmasked_score: Float32Image
    #: Sum of the reference's light under the score's kernel, in sigma: how bright what was subtracted was.
    subtracted_light: Float32Image
    kernels: TileKernels
    psf_science: Psf
    psf_reference: Psf
    #: PSF of the difference at the frame's centre: of a unit flux what lies on the stamp.
    psf: NDArray[np.float32]
    #: science = flux_scale × reference.
    flux_scale: float
    #: Scatter of the score on empty sky as propagated from the noise of both frames, before it was divided
    #: out.
    noise_scale: float
    fwhm_science_px: float
    fwhm_reference_px: float
    algorithm: Algorithm
    #: Why this algorithm, one sentence with the numbers.
    why: str
    unit: str
    #: What was assumed or estimated, one sentence each.
    assumed: tuple[str, ...] = ()
    #: Gain and residual shift over the frame, with the sources that showed them; None: not kept.
    match: PhotometricMatch | None = None
    numbers: dict[str, Number] = field(default_factory=dict)
    #: Noise of both frames on the science grid, against their variance planes.
    noise_science: NoiseModel = field(default_factory=white_noise)
    noise_reference: NoiseModel = field(default_factory=white_noise)

    @property
    def shape(self) -> tuple[int, int]:
        """`(ny, nx)`."""
        ny, nx = self.score.shape
        return ny, nx


@dataclass(frozen=True, slots=True)
class Candidate:
    """One source of the difference image, of either sign."""

    #: 0-based rank by |score|, strongest first.
    index: int
    #: Zero-based pixels of the science frame, with 1-sigma errors.
    x: float
    y: float
    x_err: float
    y_err: float
    #: ICRS degrees; None without a WCS.
    ra_deg: float | None
    dec_deg: float | None
    #: PSF-fit flux at its peak and its 1-sigma error, unit of the science frame; of all of the source's
    #: light, also of what lies beyond the PSF's stamp. The place is fitted too: on average this is higher
    #: than the flux at the true place, by 1 / snr² of it (1 % at S/N 10).
    flux: float
    flux_err: float
    #: |flux| / flux_err.
    snr: float
    #: Signed significance in sigma.
    score: float
    #: From second moments of the difference; None where they are not positive.
    fwhm_px: float | None
    #: Major over minor axis, 1 is round; None where not measured.
    elongation: float | None
    #: Reduced chi-squared of the PSF fit within one FWHM.
    chi2: float | None
    is_positive: bool
    #: Any of `dipole`, `edge`, `masked`, `saturated`, `sharp`, `extended`, `streak`, `stray_light`,
    #: `glint`, and two that say nothing against it: `blended`, measured without the light of others of its
    #: sign close by, and `on_source`, where the reference has light by itself.
    flags: tuple[str, ...]

    @property
    def is_doubted(self) -> bool:
        """Whether a flag speaks against it."""
        return not ARTEFACT_FLAGS.isdisjoint(self.flags)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The delivered list, strongest first, and how many peaks were set aside, by reason."""

    items: tuple[Candidate, ...]
    threshold_sigma: float
    rejected: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Validation:
    """Whether a difference can be believed, with the numbers behind it. None: not measured."""

    passed: bool
    #: One sentence per broken rule.
    reasons: tuple[str, ...]
    #: 1-sigma noise of a pixel of the difference, unit of the frame.
    noise_level: float | None
    #: Highest |difference| over `noise_level`.
    dynamic_range: float | None
    saturation_fraction: float
    #: Candidates with a flag that says artefact.
    artifact_count: int | None
    #: Mean, scatter, extremes, skewness and kurtosis of the score on empty sky, sigma.
    mean: float | None
    median: float | None
    std: float | None
    minimum: float | None
    maximum: float | None
    skewness: float | None
    kurtosis: float | None
    #: |score| > 3 on empty sky over what a Gaussian has.
    tail_ratio: float | None
    #: Correlation of neighbouring pixels of the difference on empty sky.
    spatial_correlation: float | None
    #: Power left at stars over the stars' power.
    residual_power: float | None
    #: Share of the frame's pixels with a score.
    valid_fraction: float
    n_sky_samples: int
