"""The bytes of a file that may be compressed, decompressed only as far as they are asked for.

Owns the cap on what a file may become; never interprets FITS.
"""

import bz2
import lzma
import mmap
import zlib
from pathlib import Path
from typing import Protocol

from astrid_workers.errors import FrameRejected

#: Bytes that are decompressed at one time.
CHUNK_BYTES = 1 << 20
#: Memory that an xz stream may ask its decoder for: level 9 needs 65 MB.
XZ_MEMORY_BYTES = 256_000_000

_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
#: Containers that are told apart only to be refused with their name.
_REFUSED = {b"PK\x03\x04": "a zip archive", b"\x1f\x9d": "a .Z file", b"(\xb5/\xfd": "a zstd file"}


class _Decoder(Protocol):
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class CappedBytes:
    """What a file holds after decompression; grows on demand and never beyond `max_bytes`.

    `data` is the file's bytes or its path; a path is mapped, not read. Raises FrameRejected, naming `name`,
    when the file is larger than `max_bytes`, becomes larger, or is damaged.
    """

    def __init__(self, data: bytes | Path, *, name: str, max_bytes: int) -> None:
        self._name, self._max_bytes = name, max_bytes
        self._packed = _mapped(data, name, max_bytes)
        if len(self._packed) > max_bytes:
            msg = f"{name}: {len(self._packed)} bytes, the limit is {max_bytes}"
            raise FrameRejected(msg, bytes=len(self._packed), limit=max_bytes)
        self._kind = _kind(bytes(self._packed[:6]), name)
        self._taken = 0
        self._open = bytearray()
        self._decoder = self._new_decoder() if self._kind else None

    def has(self, stop: int) -> bool:
        """Whether there are at least `stop` bytes; decompresses as far as that."""
        if self._decoder is None and not self._kind:
            return stop <= len(self._packed)
        self._grow_to(stop)
        return stop <= len(self._open)

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop` (fewer at the end of the file); of a plain file without a copy."""
        self.has(stop)
        if self._kind:  # a view of the growing buffer would forbid it to grow
            return memoryview(bytes(self._open[start:stop]))
        return memoryview(self._packed)[start:stop]

    def known_size(self) -> int:
        """Bytes that are there: all of a plain file; of a compressed one what was decompressed so far."""
        return len(self._open) if self._kind else len(self._packed)

    def _new_decoder(self) -> _Decoder:
        if self._kind == "gzip":
            return _Gzip()
        if self._kind == "bzip2":
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)

    def _grow_to(self, stop: int) -> None:
        while len(self._open) < stop and self._decoder is not None:
            piece = self._next_piece()
            if len(self._open) + len(piece) > self._max_bytes:
                msg = f"{self._name}: more than {self._max_bytes} bytes once decompressed, which is the limit"
                raise FrameRejected(msg, limit=self._max_bytes, compressed_bytes=len(self._packed))
            self._open += piece

    def _next_piece(self) -> bytes:
        assert self._decoder is not None
        decoder = self._decoder
        feed = b""
        if getattr(decoder, "needs_input", True):
            feed = bytes(self._packed[self._taken : self._taken + CHUNK_BYTES])
            self._taken += len(feed)
        try:
            piece = decoder.decompress(feed, CHUNK_BYTES)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            done = len(self._open)
            msg = f"{self._name}: damaged {self._kind} data after {done} decompressed bytes: {error}"
            raise FrameRejected(msg, decompressed_bytes=len(self._open)) from None
        if getattr(decoder, "eof", False):
            self._after_one_stream(getattr(decoder, "unused_data", b""))
        elif not piece and not feed and self._taken >= len(self._packed):
            msg = f"{self._name}: the {self._kind} data end early, after {len(self._open)} decompressed bytes"
            raise FrameRejected(msg, decompressed_bytes=len(self._open))
        return piece

    def _after_one_stream(self, unused: bytes) -> None:
        """Streams may follow each other in one file; anything else behind one is ignored, as gzip does."""
        self._taken -= len(unused)
        rest = bytes(self._packed[self._taken : self._taken + 6])
        again = rest.startswith({"gzip": _GZIP, "bzip2": _BZIP2, "xz": _XZ}[self._kind or "gzip"])
        self._decoder = self._new_decoder() if again else None


class _Gzip:
    """zlib's decoder with the interface of the other two."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _mapped(data: bytes | Path, name: str, max_bytes: int) -> bytes | mmap.mmap:
    if isinstance(data, bytes):
        return data
    try:
        size = data.stat().st_size
        if size == 0 or size > max_bytes:
            return _empty_or_too_large(size, name, max_bytes)
        with data.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        msg = f"{name}: cannot be read: {error.strerror or error}"
        raise FrameRejected(msg) from None


def _empty_or_too_large(size: int, name: str, max_bytes: int) -> bytes:
    if size == 0:
        return b""
    msg = f"{name}: {size} bytes, the limit is {max_bytes}"
    raise FrameRejected(msg, bytes=size, limit=max_bytes)


def _kind(start: bytes, name: str) -> str | None:
    for magic, what in _REFUSED.items():
        if start.startswith(magic):
            msg = f"{name}: {what}; FITS, or FITS packed by gzip, bzip2 or xz, is expected"
            raise FrameRejected(msg)
    for magic, kind in ((_GZIP, "gzip"), (_BZIP2, "bzip2"), (_XZ, "xz")):
        if start.startswith(magic):
            return kind
    return None
