"""Large frames that leave memory while nobody looks at them.

Owns where a frame's planes lie: those of a large frame in unnamed scratch files that are mapped into memory.
Whoever reads a plane gets its pixels as ever; `set_aside` lets go of the memory until then. Never changes a
pixel. The files are in the system's folder for temporary files (TMPDIR) and gone with the frame: on a disk
they bound memory, in a memory file system they gain nothing.
"""

import mmap
import os
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image, Frame

#: Pixels from which a frame is worth a file.
LARGE_PX = 32_000_000


def movable(frame: Frame) -> Frame:
    """The same frame; a large one in files. Where the disk has no room for a plane, it stays in memory."""
    if frame.science.size < LARGE_PX:
        return frame
    return replace(
        frame, science=_in_file(frame.science), variance=_in_file(frame.variance), mask=_in_file(frame.mask)
    )


def set_aside(*frames: Frame) -> None:
    """Let go of the memory of planes that lie in files; they are read again when they are looked at."""
    for frame in frames:
        let_go(frame.science, frame.variance, frame.mask)


def empty_plane(shape: tuple[int, int]) -> Float32Image:
    """A plane of zeros to be written; a large one in a file. Where the disk has no room, it is in memory."""
    size = shape[0] * shape[1]
    mapping = None if size < LARGE_PX else _mapped(size * np.dtype(np.float32).itemsize)
    if mapping is None:
        return np.zeros(shape, np.float32)
    return np.frombuffer(mapping, np.float32).reshape(shape)


def let_go(*planes: NDArray[Any]) -> None:
    """Let go of the memory of those of the planes that lie in files; what was written stays theirs."""
    for plane in planes:
        mapping = _mapping_of(plane)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            # of a shared mapping of a file only the pages go: what was written is the file's
            mapping.madvise(mmap.MADV_DONTNEED)


def _in_file(plane: NDArray[Any]) -> NDArray[Any]:
    """A copy in a mapped file; the plane itself where it lies in one already or there is no room."""
    mapping = None if _mapping_of(plane) is not None else _mapped(plane.nbytes)
    if mapping is None:
        return plane
    copy = np.frombuffer(mapping, plane.dtype).reshape(plane.shape)
    copy[:] = plane
    return copy


def _mapped(n_bytes: int) -> mmap.mmap | None:
    """An unnamed file of zeros in memory's reach; None without room for it."""
    try:
        with tempfile.TemporaryFile(prefix="astrid-plane-") as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk is told here, not on a write
            return mmap.mmap(file.fileno(), n_bytes)
    except OSError:
        return None


def _mapping_of(plane: NDArray[Any]) -> mmap.mmap | None:
    """The file's mapping that a plane's pixels are in; None for memory."""
    holder: object = plane
    while isinstance(holder, np.ndarray):
        holder = holder.base
    if isinstance(holder, memoryview):
        holder = holder.obj
    return holder if isinstance(holder, mmap.mmap) else None
