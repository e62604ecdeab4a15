"""Images of 256 colours as PNG.

Owns one encoding: a palette and its indices, which a frame's picture is anyway. A third of the bytes and of
the time of three channels, and nothing to import.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: zlib's effort: noise does not get smaller by more of it, and frames are noise.
_EFFORT = 1


def indexed_png(index: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """`index` `[row, column]`, the first row at the top, in the colours `palette` `(256, 3)`."""
    height, width = index.shape
    rows = np.zeros((height, width + 1), np.uint8)  # every row begins with its filter, none
    rows[:, 1:] = index
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return SIGNATURE + b"".join(
        _chunk(kind, data)
        for kind, data in (
            (b"IHDR", head),
            (b"PLTE", palette.astype(np.uint8).tobytes()),
            (b"IDAT", zlib.compress(rows.tobytes(), _EFFORT)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
