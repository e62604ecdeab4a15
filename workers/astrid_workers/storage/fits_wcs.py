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

from astrid_workers.celestial import celestial_frame
from astrid_workers.errors import FrameRejected

# Nothing may be fetched while images are processed: the bundled tables have to do.
iers.conf.auto_download = False
iers.conf.auto_max_age = None
astropy_data.conf.allow_internet = False

#: Round trip pixel → sky → pixel at the corners that a usable WCS stays within.
ROUND_TRIP_PX = 0.1

#: The matrix of a WCS; all of it 0 would be read as one degree per pixel.
CD_CARDS = ("CD1_1", "CD1_2", "CD2_1", "CD2_2")

#: What some programs call the systems of RADESYS.
OTHER_SYSTEM_NAMES = {"J2000": "FK5", "J2000.0": "FK5", "B1950": "FK4", "B1950.0": "FK4"}


def celestial_wcs(header: Header, shape: tuple[int, int]) -> tuple[WCS | None, str | None]:
    """A two-dimensional celestial WCS for an image `(ny, nx)`, and None; or None and why the cards cannot be
    used.

    Both are None when the header has no celestial axes. TAN, TAN-SIP, TPV and what else wcslib knows, in any
    celestial coordinates that ICRS follows from.
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
            whole = WCS(_put_right(header), fix=True)
            is_celestial = whole.has_celestial and {whole.wcs.lng, whole.wcs.lat} == {0, 1}
            # axes by number: `whole.celestial` would have longitude first, and its pixel axis with it
            wcs = whole.sub([1, 2]) if is_celestial and whole.naxis != 2 else whole
            if is_celestial:
                celestial_frame(wcs)
    except FrameRejected as error:
        return None, f"{error}: taken as no WCS"
    except (ValueError, KeyError, TypeError, AssertionError, MemoryError, AttributeError) as error:
        return None, f"the WCS cards cannot be read ({_first_line(error)}): taken as no WCS"
    if not is_celestial:
        return None, f"CTYPE1, CTYPE2 are {types[0]}, {types[1]}, not celestial: taken as no WCS"
    trouble = _trouble(wcs, shape)
    return (None, f"{trouble}: taken as no WCS") if trouble else (wcs, None)


def _put_right(header: Header) -> Header:
    """The header as FITS means it, where programs have ways of their own; itself where there are none."""
    cards = {**_named_system(header), **_polynomial(header)}
    if not cards:
        return header
    right = header.copy()
    right.update(cards)
    return right


def _named_system(header: Header) -> dict[str, str]:
    """RADESYS in the spelling that FITS has for it."""
    raw = str(header.get("RADESYS", header.get("RADECSYS", "")))
    name = raw.strip().upper()
    name = OTHER_SYSTEM_NAMES.get(name, name)
    return {"RADESYS": name} if name != raw.rstrip() else {}


def _polynomial(header: Header) -> dict[str, str | float]:
    """The cards that make PV terms the polynomial which they are.

    SCAMP wrote it under TAN before TPV had a name, which shows in PV cards of the declination: TAN has no
    parameter there. astropy sees it only from PVi_5 on, and wcslib takes a missing linear term as 0, where
    the convention has 1.
    """
    types = {axis: str(header.get(f"CTYPE{axis}", "")).strip() for axis in (1, 2)}
    if all(kind.endswith("-TAN") for kind in types.values()):
        declination = 1 if types[1].startswith("DEC") else 2
        terms = header[f"PV{declination}_*"].values()
        if not any(isinstance(term, int | float) and term for term in terms):
            return {}
    elif not all(kind.endswith("-TPV") for kind in types.values()):
        return {}
    linear = {f"PV{axis}_1": 1.0 for axis in types if f"PV{axis}_1" not in header}
    return {f"CTYPE{axis}": f"{kind[:-4]}-TPV" for axis, kind in types.items()} | linear


def pixel_scale_arcsec(wcs: WCS) -> float:
    """Geometric mean of the two axes at the reference point."""
    scales = proj_plane_pixel_scales(wcs)[:2]
    return float(np.sqrt(abs(scales[0] * scales[1])) * 3600)


def _trouble(wcs: WCS, shape: tuple[int, int]) -> str | None:
    ny, nx = shape
    x = np.array([0.0, nx - 1.0, 0.0, nx - 1.0, (nx - 1) / 2])
    y = np.array([0.0, 0.0, ny - 1.0, ny - 1.0, (ny - 1) / 2])
    try:
        world = wcs.all_pix2world(x, y, 0)
        if not np.isfinite(world).all():
            return "the WCS does not give a position at every corner"
        back_x, back_y = wcs.all_world2pix(*world, 0, quiet=True)
    except (ValueError, NoConvergence, InvalidTransformError, MemoryError) as error:
        return f"the WCS cannot be inverted ({_first_line(error)})"
    off = float(np.nanmax(np.hypot(back_x - x, back_y - y))) if np.isfinite(back_x).any() else np.inf
    if not off < ROUND_TRIP_PX:
        return f"the WCS misses its own corners by {off:.3g} px, more than {ROUND_TRIP_PX}"
    scale = pixel_scale_arcsec(wcs)
    return None if 1e-4 < scale < 3600 else f"the WCS has pixels of {scale:.3g} arcsec"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:80]
