"""Tile-compressed images of a FITS file.

Owns which compressions are read and the checks before foreign decoders run; never scales or interprets
pixels.
"""

import io
import math
import warnings
import zlib
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from astrid_workers.errors import FrameRejected
from astrid_workers.storage.fits_structure import Hdu

#: Compressions that are read. HCOMPRESS_1 is not: its decoder writes out of bounds on damaged data.
READ_COMPRESSIONS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "NOCOMPRESS")
#: Columns whose cells are gzip streams, whatever the compression of the image.
_GZIP_COLUMNS = ("GZIP_COMPRESSED_DATA",)

_EMPTY_PRIMARY = fits.PrimaryHDU().header.tostring().encode("ascii")


def unpacked(unit: bytes, hdu: Hdu, header: fits.Header, name: str) -> NDArray[Any]:
    """The pixels of a tile-compressed unit, in their own type and shape, scaled as its cards say.

    `unit` holds the bytes of header and data. Raises FrameRejected when the compression is not read, a tile
    becomes larger than it may, or the data are damaged.
    """
    compression = str(header.get("ZCMPTYPE", "")).strip()
    if compression not in READ_COMPRESSIONS:
        allowed = ", ".join(READ_COMPRESSIONS)
        msg = f"{name}: ZCMPTYPE of {hdu.label} is {compression or 'missing'}, expected one of {allowed}"
        raise FrameRejected(msg, hdu=hdu.index)
    file = _EMPTY_PRIMARY + unit + b"\0" * (-len(unit) % 2880)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _refuse_tile_bombs(file, hdu, header, compression, name)
            with fits.open(io.BytesIO(file), memmap=False) as units:
                data: NDArray[Any] | None = units[1].data
    except FrameRejected:
        raise
    except Exception as error:
        # decoders raise classes of their own, and of zlib, gzip and struct: to us they all mean damaged tiles
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        msg = f"{name}: the compressed tiles of {hdu.label} are damaged ({reason})"
        raise FrameRejected(msg, hdu=hdu.index) from error
    if data is None or data.shape != hdu.shape:
        msg = f"{name}: {hdu.label} unpacks to another size than ZNAXIS says"
        raise FrameRejected(msg, hdu=hdu.index)
    return data


def _refuse_tile_bombs(file: bytes, hdu: Hdu, header: fits.Header, compression: str, name: str) -> None:
    """Inflate gzip tiles up to the size that a tile may have: the decoder itself knows no limit."""
    columns = [*_GZIP_COLUMNS, *(["COMPRESSED_DATA"] if compression.startswith("GZIP") else [])]
    axes = tuple(reversed(hdu.shape))
    tile = [int(header.get(f"ZTILE{i + 1}", n if i == 0 else 1)) for i, n in enumerate(axes)]
    most = 8 * math.prod(min(t, n) for t, n in zip(tile, axes, strict=True))
    with fits.open(io.BytesIO(file), memmap=False, disable_image_compression=True) as units:
        table = units[1].data
        for column in columns:
            if table is None or column not in table.names:
                continue
            for cell in table[column]:
                packed = np.asarray(cell).astype(np.uint8).tobytes()
                if packed and len(zlib.decompressobj(wbits=47).decompress(packed, most + 1)) > most:
                    msg = f"{name}: a tile of {hdu.label} becomes larger than its limit, {most} bytes"
                    raise FrameRejected(msg, hdu=hdu.index, limit=most)
