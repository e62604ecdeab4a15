"""Small FITS files as a telescope might have written them."""

import io
from typing import Any

import numpy as np
from astropy.io import fits


def fits_bytes(
    ra: float = 180.0, dec: float = 30.0, side: int = 40, *, wcs: bool = True, **cards: Any
) -> bytes:
    """A small FITS file with 9-arcsecond pixels."""
    header = fits.Header(
        {"EXPTIME": 60.0, "FILTER": "r", "DATE-OBS": "2026-01-02T03:04:05", "AIRMASS": 1.2, **cards}
    )
    if wcs:
        header.update(
            {
                "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": (side + 1) / 2,
                "CRPIX2": (side + 1) / 2, "CDELT1": -0.0025, "CDELT2": 0.0025, "CUNIT1": "deg", "CUNIT2": "deg",
            }
        )  # fmt: skip
    pixels = np.random.default_rng(1).normal(100, 5, (side, side)).astype(np.float32)
    file = io.BytesIO()
    fits.PrimaryHDU(pixels, header).writeto(file)
    return file.getvalue()
