"""References that were built, as FITS.

Owns the layout of such a file (a frame artifact with its grade in cards and a COVERAGE plane) and the choice
between it and anybody's FITS when a reference is read; never builds one.
"""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Frame
from astrid_workers.storage.fits import read_frame
from astrid_workers.storage.fits_artifacts import frame_from_fits, frame_to_fits
from astrid_workers.storage.fits_bytes import CappedBytes
from astrid_workers.storage.fits_structure import FitsLimits, read_structure

#: Extensions of a frame artifact.
_PLANES = frozenset({"SCI", "VAR", "MASK", "FACTS"})
#: A reference's header says with this card that it counts the electrons of all its frames: 1 per unit.
_GAIN_CARD = ("GAIN", 1.0, "electrons per unit: all frames are counted")


def reference_to_fits(
    frame: Frame, coverage: NDArray[np.uint16], cards: Mapping[str, tuple[str | int | float | None, str]]
) -> bytes:
    """A frame without loss, `cards` (value and comment; None is left out) in its SCI header, and COVERAGE.

    COVERAGE is the number of frames under each pixel. Others find the image in SCI and its variance in VAR.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        units = fits.open(io.BytesIO(frame_to_fits(frame)), do_not_scale_image_data=True)
        if frame.unit == "electron":
            units["SCI"].header.append(_GAIN_CARD)
        for card, (value, comment) in cards.items():
            if value is not None:
                units["SCI"].header[card] = (value, comment)
        units.append(fits.ImageHDU(coverage.astype(np.int16), name="COVERAGE"))
        buffer = io.BytesIO()
        units.writeto(buffer)
    return buffer.getvalue()


def read_reference(
    path: Path,
    *,
    noise: Path | None = None,
    mask: Path | None = None,
    limits: FitsLimits | None = None,
    extension: int | None = None,
) -> Frame:
    """The frame of a reference that `reference_to_fits` wrote, with its variance and mask.

    Of any other file what `read_frame` makes of it. A noise map or a mask given is taken for all that came
    along. Raises as `read_frame`.
    """
    limits = limits or FitsLimits()
    source = CappedBytes(path, name=path.name, max_bytes=limits.max_bytes)
    names = {unit.name for unit in read_structure(source, name=path.name, limits=limits)}
    if noise is not None or mask is not None or extension is not None or not names >= _PLANES:
        return read_frame(path, noise=noise, mask=mask, limits=limits, extension=extension)
    try:
        frame = frame_from_fits(path)
    except (ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        msg = f"{path.name}: looks like a reference of Astrid, but is damaged ({str(error)[:80]})"
        raise FrameRejected(msg) from None
    if not np.isfinite(frame.science).all() or np.isnan(frame.variance).any():
        msg = f"{path.name}: a reference of Astrid holds numbers only, this one holds NaN"
        raise FrameRejected(msg)
    return frame
