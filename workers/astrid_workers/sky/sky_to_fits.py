"""A simulated pair written the way that observers' files look.

Owns cards and number formats; never draws anything.
"""

import io

import numpy as np
from astropy.io import fits

from astrid_workers.frame import Frame
from astrid_workers.mask import MaskBit
from astrid_workers.sky.make_sky import Sky


def sky_to_fits(
    sky: Sky,
    *,
    as_integers: bool = True,
    with_gain: bool = True,
    with_saturation: bool = True,
    with_facts: bool = True,
    with_wcs: bool = True,
) -> tuple[bytes, bytes]:
    """Science and reference as FITS files in ADU; `frame_to_user_fits` says how."""
    options = {
        "as_integers": as_integers,
        "with_gain": with_gain,
        "with_saturation": with_saturation,
        "with_facts": with_facts,
        "with_wcs": with_wcs,
    }
    return frame_to_user_fits(sky.science, **options), frame_to_user_fits(sky.reference, **options)


def frame_to_user_fits(
    frame: Frame,
    *,
    as_integers: bool = True,
    with_gain: bool = True,
    with_saturation: bool = True,
    with_facts: bool = True,
    with_wcs: bool = True,
) -> bytes:
    """One frame in ADU: uint16 by BZERO = 32768 (`as_integers`; lost pixels 0), else float32 (lost pixels
    NaN).

    Integers need electrons below 65 535 × gain; what is above is clipped, as a detector does. Optional: GAIN
    and RDNOISE, SATURATE (ADU), DATE-OBS, EXPTIME, FILTER, OBJECT and TELESCOP, the WCS.
    """
    gain = frame.facts.gain_e_per_adu or 1.0
    adu = frame.science / np.float32(gain)
    lost = (frame.mask & np.uint32(MaskBit.NO_DATA)) != 0
    if as_integers:
        pixels = np.clip(np.rint(np.where(lost, 0, adu)), 0, 65535).astype(np.uint16)
    else:
        pixels = np.where(lost, np.float32(np.nan), adu)
    header = frame.wcs.to_header(relax=True) if with_wcs and frame.wcs is not None else fits.Header()
    for card, value in _cards(frame, gain, with_gain, with_saturation, with_facts).items():
        if value is not None:
            header[card] = value
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels, header).writeto(buffer)
    return buffer.getvalue()


def mask_to_user_fits(frame: Frame, bits: MaskBit = MaskBit.BAD_PIXEL) -> bytes:
    """A companion mask file: 1 where any of `bits` is set, as a bad-pixel map would have it."""
    flagged = ((frame.mask & np.uint32(bits)) != 0).astype(np.uint8)
    buffer = io.BytesIO()
    fits.PrimaryHDU(flagged).writeto(buffer)
    return buffer.getvalue()


def _cards(
    frame: Frame, gain: float, with_gain: bool, with_saturation: bool, with_facts: bool
) -> dict[str, str | float | None]:
    facts = frame.facts
    cards: dict[str, str | float | None] = {}
    if with_gain:
        cards |= {"GAIN": gain, "RDNOISE": facts.read_noise_e}
    if with_saturation and facts.saturation is not None:
        cards["SATURATE"] = facts.saturation / gain
    if with_facts:
        observed = facts.observed_at
        cards |= {
            "DATE-OBS": None if observed is None else observed.replace(tzinfo=None).isoformat(),
            "EXPTIME": facts.exposure_s,
            "FILTER": facts.filter_name,
            "OBJECT": facts.object_name,
            "TELESCOP": facts.telescope,
            "IMAGETYP": facts.image_type,
        }
    return cards
