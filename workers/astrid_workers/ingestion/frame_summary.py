"""What the header of a frame says about its place and its exposure.

Owns the corners of a frame on the sky; never touches a pixel.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from astrid_workers.celestial import sky_of
from astrid_workers.frame import HeaderFacts
from astrid_workers.storage.fits import FitsLimits, read_header
from astrid_workers.storage.models import FILTER_LENGTH
from astrid_workers.storage.sky_cells import centre_of, separation_deg


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """Header facts, size and footprint of one frame."""

    facts: HeaderFacts
    width_px: int
    height_px: int
    #: Outer corners in order around the frame, `(ra_deg, dec_deg)` each; None without a WCS.
    corners: tuple[tuple[float, float], ...] | None

    @property
    def centre(self) -> tuple[float, float] | None:
        """The middle of the corners, `(ra_deg, dec_deg)`; None without a WCS."""
        return None if self.corners is None else centre_of(self.corners)

    @property
    def radius_deg(self) -> float | None:
        """Angle from the centre to the farthest corner; None without a WCS."""
        if self.corners is None:
            return None
        ra_deg, dec_deg = centre_of(self.corners)
        return max(separation_deg(ra_deg, dec_deg, *corner) for corner in self.corners)


def summary_of(data: bytes | Path, *, name: str, limits: FitsLimits) -> FrameSummary:
    """The summary of a FITS file. Raises FrameRejected for one that is not within the limits."""
    header = read_header(data, name=name, limits=limits)
    ny, nx = header.shape
    corners = None if header.wcs is None else corners_of(header.wcs, (ny, nx))
    return FrameSummary(header.facts, nx, ny, corners)


def filter_band_of(facts: HeaderFacts) -> str | None:
    """The filter as rows and payloads hold it: a header may spell out more than fits."""
    return None if facts.filter_name is None else facts.filter_name[:FILTER_LENGTH].strip() or None


def corners_of(wcs: WCS, shape: tuple[int, int]) -> tuple[tuple[float, float], ...] | None:
    """ICRS positions of the outer corners of the corner pixels; None where the WCS has none for them."""
    ny, nx = shape
    x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
    y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    ra_deg, dec_deg = sky_of(wcs, x, y)
    if not (np.isfinite(ra_deg).all() and np.isfinite(dec_deg).all()):
        return None
    return tuple((float(ra), float(dec)) for ra, dec in zip(ra_deg, dec_deg, strict=True))
