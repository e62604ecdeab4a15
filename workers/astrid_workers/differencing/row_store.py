"""Images that wait on disk and are read again by rows: what is stacked need not fit in memory.

Owns the scratch files; they are gone when the store is closed. Never knows what an image means.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Pixel = TypeVar("Pixel", bound=np.generic)


@dataclass(frozen=True, slots=True)
class StoredImage(Generic[Pixel]):
    """One image `[y, x]` of a store; slices of rows are read when they are asked for."""

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Pixel]

    def __getitem__(self, rows: slice) -> NDArray[Pixel]:
        """Consecutive rows, a copy."""
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            msg = f"rows are read one after the other, not by steps of {step}"
            raise ValueError(msg)
        height, width = max(stop - start, 0), self.shape[1]
        offset = start * width * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, height * width, offset=offset).reshape(height, width)


class RowStore:
    """A folder of images for as long as the block lasts; OSError when the disk is full."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="astrid-stack-")
        self._n_stored = 0

    def __enter__(self) -> "RowStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def put(self, image: np.ndarray[Any, np.dtype[Pixel]]) -> StoredImage[Pixel]:
        """Write an image; it may be forgotten afterwards."""
        path = Path(self._folder.name, f"{self._n_stored}.rows")
        self._n_stored += 1
        np.ascontiguousarray(image).tofile(path)
        return StoredImage(path, (image.shape[0], image.shape[1]), image.dtype)
