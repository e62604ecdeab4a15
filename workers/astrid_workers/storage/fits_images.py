"""Single images that we wrote ourselves, back as arrays.

Owns the way back from `image_to_fits`; never reads a file that others wrote.
"""

from pathlib import Path

import numpy as np

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Float32Image
from astrid_workers.storage.fits_bytes import CappedBytes
from astrid_workers.storage.fits_structure import FitsLimits, read_structure

#: BITPIX of a float32 image.
_FLOAT32 = -32


def image_from_fits(data: bytes | Path, name: str) -> Float32Image:
    """The image that `image_to_fits` wrote, `[y, x]`, NaN where not measured.

    Raises FrameRejected when the first unit of `data` is not a plain float32 image.
    """
    limits = FitsLimits(max_bytes=1 << 40, max_pixels=1 << 40)
    source = CappedBytes(data, name=name, max_bytes=limits.max_bytes)
    unit = read_structure(source, name=name, limits=limits)[0]
    if unit.kind != "image" or unit.bitpix != _FLOAT32 or len(unit.shape) != 2:
        message = f"{name}: not an image artifact of Astrid, its first unit is {unit.label}"
        raise FrameRejected(message)
    raw = np.frombuffer(source.view(unit.data_start, unit.data_start + unit.data_bytes), ">f4")
    return raw.reshape(unit.shape).astype(np.float32)
