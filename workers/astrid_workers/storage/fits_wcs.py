"""The celestial coordinates of an image, from its header.

Owns the check that a WCS is one of the sky and can be inverted; never downloads anything, and never fits one.
"""

import warnings

import numpy as np
from astropy.io.fits import Header
from astropy.utils import data as astropy_data
from astropy.utils import iers
from astropy.wcs import WCS, InvalidTransformError, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_scales

# Nothing may be fetched while images are processed: the bundled tables have to do.
iers.conf.auto_download = False
iers.conf.auto_max_age = None
astropy_data.conf.allow_internet = False

#: Round trip pixel → sky → pixel at the corners that a usable WCS stays within.
ROUND_TRIP_PX = 0.1

#: The matrix of a WCS; all of it 0 would be read as one degree per pixel.
CD_CARDS = ("CD1_1", "CD1_2", "CD2_1", "CD2_2")


def celestial_wcs(header: Header, shape: tuple[int, int]) -> tuple[WCS | None, str | None]:
    """A two-dimensional celestial WCS for an image `(ny, nx)`, and None; or None and why the cards cannot be
    used.

    Both are None when the header has no celestial axes. TAN, TAN-SIP, TPV and what else wcslib knows.
    """
    types = [str(header.get(f"CTYPE{axis}", "")) for axis in (1, 2)]
    if not any(kind.strip() for kind in types):
        return None, None
    matrix = [header.get(card) for card in CD_CARDS if card in header]
    if matrix and not any(matrix):
        return None, f"{', '.join(CD_CARDS)} are all 0, expected degrees per pixel: taken as no WCS"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = WCS(header, fix=True)
            wcs = whole.celestial if whole.naxis != 2 else whole
    except (ValueError, KeyError, TypeError, AssertionError, MemoryError, AttributeError) as error:
        return None, f"the WCS cards cannot be read ({_first_line(error)}): taken as no WCS"
    if not wcs.has_celestial:
        return None, f"CTYPE1, CTYPE2 are {types[0]}, {types[1]}, not celestial: taken as no WCS"
    trouble = _trouble(wcs, shape)
    return (None, f"{trouble}: taken as no WCS") if trouble else (wcs, None)


def pixel_scale_arcsec(wcs: WCS) -> float:
    """Geometric mean of the two axes at the reference point."""
    scales = proj_plane_pixel_scales(wcs)[:2]
    return float(np.sqrt(abs(scales[0] * scales[1])) * 3600)


def _trouble(wcs: WCS, shape: tuple[int, int]) -> str | None:
    ny, nx = shape
    x = np.array([0.0, nx - 1.0, 0.0, nx - 1.0, (nx - 1) / 2])
    y = np.array([0.0, 0.0, ny - 1.0, ny - 1.0, (ny - 1) / 2])
    try:
        ra, dec = wcs.all_pix2world(x, y, 0)
        if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
            return "the WCS does not give a position at every corner"
        back_x, back_y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    except (ValueError, NoConvergence, InvalidTransformError, MemoryError) as error:
        return f"the WCS cannot be inverted ({_first_line(error)})"
    off = float(np.nanmax(np.hypot(back_x - x, back_y - y))) if np.isfinite(back_x).any() else np.inf
    if not off < ROUND_TRIP_PX:
        return f"the WCS misses its own corners by {off:.3g} px, more than {ROUND_TRIP_PX}"
    scale = pixel_scale_arcsec(wcs)
    return None if 1e-4 < scale < 3600 else f"the WCS has pixels of {scale:.3g} arcsec"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:80]
