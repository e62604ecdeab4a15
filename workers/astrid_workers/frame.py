"""The one value that stages pass to each other: an image with its variance, mask and what its header said.

Owns the contract of a frame; never reads or writes a file, and never computes.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]
Uint32Image = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What the header said, in fixed units; what was missing is None."""

    exposure_s: float | None = None
    filter_name: str | None = None
    #: Start of the exposure, UTC and aware.
    observed_at: datetime | None = None
    gain_e_per_adu: float | None = None
    read_noise_e: float | None = None
    #: Level at which pixels saturate, in the unit of the frame that carries these facts.
    saturation: float | None = None
    zero_point_mag: float | None = None
    pixel_scale_arcsec: float | None = None
    airmass: float | None = None
    seeing_arcsec: float | None = None
    object_name: str | None = None
    telescope: str | None = None
    instrument: str | None = None
    #: IMAGETYP as written: object, bias, dark, flat.
    image_type: str | None = None


class KnownSky(Protocol):
    """The sky of an image that was measured already."""

    def is_of(self, science: Float32Image) -> bool:
        """Whether it was measured on this very array."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of the sky (or of a calibration), immutable.

    Arrays are indexed `[y, x]` and share one shape `(ny, nx)`; pixel centres are at integers, zero-based.
    NaN never stands in `science`: such pixels hold 0 there, infinite variance, and `MaskBit.NO_DATA`.
    """

    #: float32, in `unit`. Not background-subtracted unless a step says so.
    science: Float32Image
    #: float32, `unit` squared per pixel; +inf where nothing was measured.
    variance: Float32Image
    #: uint32, bits of `MaskBit`.
    mask: Uint32Image
    wcs: WCS | None
    #: "electron" where a gain is known or was estimated, else the file's own ("adu", "MJy / sr").
    unit: str
    facts: HeaderFacts = field(default_factory=HeaderFacts)
    #: What was assumed or estimated on the way here, one sentence each, for the report.
    assumed: tuple[str, ...] = ()
    #: Where it came from, for messages: a file name, never a credential.
    name: str = "frame"
    #: The sky of `science`, where reading it has measured one; a frame of other pixels lets go of it.
    sky: KnownSky | None = None

    def __post_init__(self) -> None:
        shape = self.science.shape
        if self.science.ndim != 2 or self.variance.shape != shape or self.mask.shape != shape:
            shapes = f"{shape}, {self.variance.shape}, {self.mask.shape}"
            msg = f"a frame's arrays must share one 2-D shape, got {shapes}"
            raise ValueError(msg)
        for array, dtype in ((self.science, np.float32), (self.variance, np.float32), (self.mask, np.uint32)):
            if array.dtype != dtype:
                msg = f"a frame's array must be {np.dtype(dtype).name}, got {array.dtype}"
                raise ValueError(msg)
        if self.sky is not None and not self.sky.is_of(self.science):
            object.__setattr__(self, "sky", None)

    @property
    def shape(self) -> tuple[int, int]:
        """`(ny, nx)`."""
        ny, nx = self.science.shape
        return ny, nx

    def with_assumption(self, sentence: str) -> "Frame":
        """The same frame with one more sentence in `assumed`."""
        return replace(self, assumed=(*self.assumed, sentence))
