"""The level at which a frame saturates: what its header says, held against its pixels.

Owns that one judgement; which pixels become mask is `imaging.measured_frame`.
"""

from dataclasses import replace

import numpy as np

from astrid_workers.frame import Float32Image, HeaderFacts
from astrid_workers.imaging.noise import robust_median_and_scatter

#: A level within so many sigma of the sky would flag the noise of the sky: no detector is used like that.
SKY_SIGMA = 5.0
#: Times the header's level above the sky, and pixels beyond that, from which no detector clips there.
BEYOND, FEWEST_BEYOND = 10.0, 20
#: Pixels of the brightest value, some beside each other, from which that is a level, and the sigma of the sky
#: that it must be above.
FEWEST_ALIKE, BRIGHT_SIGMA = 4, 50.0


def believed_saturation(facts: HeaderFacts, pixels: Float32Image) -> tuple[HeaderFacts, str | None]:
    """The facts with a saturation level that the pixels do not contradict, and a sentence where they did.

    `pixels` are in the unit of the facts, NaN where not measured. A level that the sky reaches, or that light
    passes by far, is not believed. Where several pixels hold the brightest value and lie beside each other,
    below the header's level or without one, that value is the level. An image without scatter says nothing.
    """
    sky, scatter = robust_median_and_scatter(pixels)
    if not scatter > 0:
        return facts, None
    level = facts.saturation
    said = None
    if level is not None:
        said = _contradiction(level, pixels, sky, scatter)
        level = level if said is None else None
    value, count = _brightest(pixels)
    if count == 0 or value < sky + BRIGHT_SIGMA * scatter or (level is not None and value >= level):
        return replace(facts, saturation=level), said
    header = "SATURATE is missing" if facts.saturation is None else f"SATURATE says {facts.saturation:g}"
    said = f"{header}: {count} pixels hold the brightest value, {value:g}, and are taken as saturated"
    return replace(facts, saturation=value), said


def _contradiction(level: float, pixels: Float32Image, sky: float, scatter: float) -> str | None:
    seen = f"SATURATE says {level:g}, and the sky is at {sky:.4g} with a scatter of {scatter:.3g}"
    if level <= sky + SKY_SIGMA * scatter:
        return f"{seen}: not believed, taken as missing"
    beyond = int(np.count_nonzero(pixels > sky + BEYOND * (level - sky)))
    if beyond < FEWEST_BEYOND:
        return None
    return f"{seen}, but {beyond} pixels are {BEYOND:g} times as far above it: not believed, taken as missing"


def _brightest(pixels: Float32Image) -> tuple[float, int]:
    """The largest value, and how many pixels hold it where light must have been cut there; 0 elsewhere."""
    largest = np.nanmax(pixels)
    rows, columns = np.nonzero(pixels == largest)
    at = set(zip(rows.tolist(), columns.tolist(), strict=True))
    together = any((row + 1, column) in at or (row, column + 1) in at for row, column in at)
    return float(largest), rows.size if rows.size >= FEWEST_ALIKE and together else 0
