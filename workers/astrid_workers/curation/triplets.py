"""The picture of a detection: science, reference and difference around it, side by side.

Owns cutting, stretching and the PNG; never reads a store. The same pixels give the same bytes, so that a
picture that is made twice is stored once.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.cutout import cutout

Gray = NDArray[np.uint8]

#: Width of the black line between two panels, and of one science pixel on the picture, in picture pixels.
GAP_PX = 2
ZOOM = 3
#: The difference is shown from minus to plus this many of its own sigmas.
DIFFERENCE_SIGMAS = 6.0
#: Gray of pixels that were not measured.
NOT_MEASURED = 96
#: Softening of the stretch of the two sky panels, in sigmas above the sky.
_SOFTENING_SIGMAS = 3.0
#: Scatter of a Gaussian over its median absolute deviation.
_MAD_TO_SIGMA = 1.4826


def triplet_png(
    science: Float32Image, reference: Float32Image, difference: Float32Image, x: float, y: float, size_px: int
) -> bytes:
    """PNG, 8-bit gray, north as the science frame has it (first row at the bottom), centred on `(x, y)`.

    The images share the science grid, `[y, x]`, with NaN where nothing was measured; `size_px` is the side
    of one panel in their pixels.
    """
    panels = [
        sky_stretch(cutout(science, x, y, size_px)),
        sky_stretch(cutout(reference, x, y, size_px)),
        difference_stretch(cutout(difference, x, y, size_px)),
    ]
    gap = np.zeros((size_px * ZOOM, GAP_PX), dtype=np.uint8)
    zoomed = [np.kron(panel[::-1], np.ones((ZOOM, ZOOM), dtype=np.uint8)) for panel in panels]
    return gray_png(np.hstack([zoomed[0], gap, zoomed[1], gap, zoomed[2]]))


def sky_stretch(panel: NDArray[np.floating]) -> Gray:
    """Median sky dark, brightest pixel white, asinh between; not-measured pixels `NOT_MEASURED`."""
    level, sigma = _level_and_sigma(panel)
    above = np.arcsinh((panel - level) / (_SOFTENING_SIGMAS * sigma))
    top = np.nanmax(above, initial=0.0, where=np.isfinite(above))
    return _gray((above + 0.5) / (max(float(top), 1.0) + 0.5), panel)


def difference_stretch(panel: NDArray[np.floating]) -> Gray:
    """Zero in the middle of the grays, linear to `DIFFERENCE_SIGMAS` either way."""
    _, sigma = _level_and_sigma(panel)
    return _gray(0.5 + panel / (2 * DIFFERENCE_SIGMAS * sigma), panel)


def _level_and_sigma(panel: NDArray[np.floating]) -> tuple[float, float]:
    measured = panel[np.isfinite(panel)]
    if not measured.size:
        return 0.0, 1.0
    level = float(np.median(measured))
    sigma = float(np.median(np.abs(measured - level))) * _MAD_TO_SIGMA
    return level, sigma or float(np.std(measured)) or 1.0


def _gray(unit: NDArray[np.floating], panel: NDArray[np.floating]) -> Gray:
    is_measured = np.isfinite(panel)
    levels = np.clip(np.where(is_measured, unit, 0.0), 0.0, 1.0) * 255.0
    return np.where(is_measured, np.rint(levels), NOT_MEASURED).astype(np.uint8)


def gray_png(image: Gray) -> bytes:
    """An 8-bit gray PNG of `image`, first row on top."""
    ny, nx = image.shape
    rows = np.concatenate([np.zeros((ny, 1), dtype=np.uint8), image], axis=1)
    header = struct.pack(">IIBBBBB", nx, ny, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
