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

from astrid_workers.frame import Frame

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
        for plane in (frame.science, frame.variance, frame.mask):
            mapping = _mapping_of(plane)
            if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
                # of a shared mapping of a file only the pages go: what was written is the file's
                mapping.madvise(mmap.MADV_DONTNEED)


def _in_file(plane: NDArray[Any]) -> NDArray[Any]:
    """A copy in a mapped file; the plane itself where it lies in one already or there is no room."""
    if _mapping_of(plane) is not None:
        return plane
    try:
        with tempfile.TemporaryFile(prefix="astrid-plane-") as file:
            os.posix_fallocate(file.fileno(), 0, plane.nbytes)  # a full disk is told here, not on a write
            mapping = mmap.mmap(file.fileno(), plane.nbytes)
    except OSError:
        return plane
    copy = np.frombuffer(mapping, plane.dtype).reshape(plane.shape)
    copy[:] = plane
    return copy


def _mapping_of(plane: NDArray[Any]) -> mmap.mmap | None:
    """The file's mapping that a plane's pixels are in; None for memory."""
    holder: object = plane
    while isinstance(holder, np.ndarray):
        holder = holder.base
    if isinstance(holder, memoryview):
        holder = holder.obj
    return holder if isinstance(holder, mmap.mmap) else None
