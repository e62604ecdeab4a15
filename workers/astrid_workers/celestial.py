"""From pixels to RA and Dec and back, whatever celestial coordinates a WCS has.

Owns the order of a WCS's world axes and the way from its celestial frame to ICRS; never reads a header, and
never decides whether a WCS can be used.
"""

import numpy as np
from astropy import units
from astropy.coordinates import (
    ICRS,
    BarycentricMeanEcliptic,
    BaseCoordinateFrame,
    Galactic,
    Supergalactic,
    UnitSphericalRepresentation,
)
from astropy.time import Time
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import wcs_to_celestial_frame
from numpy.typing import ArrayLike, NDArray

from astrid_workers.errors import FrameRejected

Floats = NDArray[np.float64]

#: Equinoxes that a catalogue can have, years; another number is a mistake of the header.
EARLIEST_EQUINOX, LATEST_EQUINOX = 1800.0, 2100.0


def sky_of(wcs: WCS, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """RA and Dec, ICRS degrees, of zero-based pixels; NaN where the projection has none.

    Raises FrameRejected as `celestial_frame` does.
    """
    frame = celestial_frame(wcs)
    world = wcs.all_pix2world(x, y, 0)
    lon, lat = world[wcs.wcs.lng], world[wcs.wcs.lat]
    return (lon, lat) if frame is None else _moved(lon, lat, frame, ICRS())


def pixel_of(wcs: WCS, ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats]:
    """Zero-based pixels x and y of ICRS degrees; all NaN where the projection cannot be inverted.

    Raises FrameRejected as `celestial_frame` does.
    """
    frame = celestial_frame(wcs)
    lon, lat = (ra_deg, dec_deg) if frame is None else _moved(ra_deg, dec_deg, ICRS(), frame)
    try:
        x, y = wcs.all_world2pix(*((lon, lat) if wcs.wcs.lng == 0 else (lat, lon)), 0, quiet=True)
    except (ValueError, NoConvergence):
        return np.full_like(lon, np.nan), np.full_like(lat, np.nan)
    return x, y


def celestial_frame(wcs: WCS) -> BaseCoordinateFrame | None:
    """The frame of a WCS's positions as astropy names it; None where they count as ICRS.

    FK5 of J2000 counts as ICRS, which it is to 0.03 arcsec. Raises FrameRejected for coordinates that do not
    lie fixed on the sky, that astropy does not know, or whose equinox is no year of a catalogue.
    """
    # asking for the axis sets the WCS up, which fills RADESYS and EQUINOX as FITS has their defaults
    axis = wcs.wcs.lng
    kind, system, equinox = wcs.wcs.lngtyp, wcs.wcs.radesys, wcs.wcs.equinox
    if kind == "RA" and (system == "ICRS" or (system == "FK5" and equinox == 2000)):
        return None
    if kind in {"GLON", "SLON"}:
        return Galactic() if kind == "GLON" else Supergalactic()
    is_dated = system in {"FK5", "FK4", "FK4-NO-E"}
    if is_dated and not EARLIEST_EQUINOX <= equinox <= LATEST_EQUINOX:
        msg = f"EQUINOX is {equinox:g}, expected {EARLIEST_EQUINOX:g} to {LATEST_EQUINOX:g}"
        raise FrameRejected(msg)
    if kind == "RA" and is_dated:
        return wcs_to_celestial_frame(wcs)
    if kind == "ELON" and system in {"ICRS", "FK5"}:
        return BarycentricMeanEcliptic(equinox=Time(equinox if system == "FK5" else 2000, format="jyear"))
    named = f" and RADESYS is {system:.20}" if system else ""
    msg = f"CTYPE{axis + 1} is {wcs.wcs.ctype[axis]}{named}: coordinates that cannot be turned into ICRS"
    raise FrameRejected(msg)


def _moved(
    lon: Floats, lat: Floats, source: BaseCoordinateFrame, target: BaseCoordinateFrame
) -> tuple[Floats, Floats]:
    """Degrees of one frame in another; NaN stays NaN."""
    places = UnitSphericalRepresentation(lon * units.deg, lat * units.deg)
    there = source.realize_frame(places).transform_to(target).represent_as(UnitSphericalRepresentation)
    return np.asarray(there.lon.deg, float), np.asarray(there.lat.deg, float)
