"""Mosaics as a camera of several chips writes them: simulated frames, one to an extension."""

import io
from collections.abc import Mapping

from astropy.io import fits

from astrid_workers.sky import Sky, make_sky


def chip(seed: int, ra_deg: float, *, side: int = 128, n_transients: int = 3) -> Sky:
    """One chip's sky, at a place of its own."""
    return make_sky(
        seed=seed,
        shape=(side, side),
        n_stars=40,
        n_transients=n_transients,
        transient_snr=(20, 40),
        ra_deg=ra_deg,
        dec_deg=2.0,
    )


def mosaic(frames: Mapping[str, bytes], *, dead: str | None = None) -> bytes:
    """Single-image files as extensions of one, by name; the pixels of the part `dead` are all 0."""
    units = [fits.PrimaryHDU()]
    for name, data in frames.items():
        with fits.open(io.BytesIO(data)) as single:
            header = single[0].header.copy()
            for card in ("SIMPLE", "EXTEND"):
                header.remove(card, ignore_missing=True)
            pixels = single[0].data.copy()
            if name == dead:
                pixels[:] = 0
            units.append(fits.ImageHDU(pixels, header, name=name))
    buffer = io.BytesIO()
    fits.HDUList(units).writeto(buffer)
    return buffer.getvalue()
