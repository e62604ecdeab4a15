"""The sky of a frame, from when its pixels were read where that still holds.

Owns when a measured sky may be asked again; never measures one (`background.py` does).
"""

from dataclasses import dataclass
from weakref import ReferenceType

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image, Frame
from astrid_workers.imaging.background import DEFAULT_BOX_PX, Background, estimate_background

BoolImage = NDArray[np.bool_]

#: Share of the pixels that may have become unusable since: a mesh of clipped modes does not feel fewer.
MOST_LOST_SINCE = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredSky:
    """A background, and what it is of."""

    background: Background
    science: ReferenceType[Float32Image]
    #: Pixels that were left out.
    n_unusable: int

    def is_of(self, science: Float32Image) -> bool:
        """Whether it was measured on this very array."""
        return self.science() is science


def background_of(frame: Frame, unusable: BoolImage, *, box_px: int = DEFAULT_BOX_PX) -> Background:
    """The background of `frame` without `unusable` pixels, as `estimate_background` gives it: the known one
    where it holds. Raises as `estimate_background`.
    """
    known = _known(frame, unusable) if box_px == DEFAULT_BOX_PX else None
    return known or estimate_background(frame.science, unusable, box_px=box_px)


def background_within(frame: Frame, unusable: BoolImage, window: tuple[slice, slice]) -> Background:
    """The background in a window of `frame`: of the known one where it holds, else of the window alone."""
    known = _known(frame, unusable)
    if known is not None:
        return known.within(window)
    return estimate_background(frame.science[window], unusable[window])


def _known(frame: Frame, unusable: BoolImage) -> Background | None:
    """The sky that came with the frame, where hardly any pixel was lost since."""
    if not isinstance(frame.sky, MeasuredSky):
        return None
    lost_since = np.count_nonzero(unusable) - frame.sky.n_unusable
    return frame.sky.background if 0 <= lost_since <= MOST_LOST_SINCE * unusable.size else None
