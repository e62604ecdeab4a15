"""Which parts of a raw image hold light, as its header says.

Owns the cards BIASSEC, TRIMSEC, DATASEC and those of single amplifiers; never touches a pixel. A header keeps
these cards long after an image was trimmed, so they are believed only where they fit the image that is there.
"""

import re
from dataclasses import replace

import numpy as np
from astropy.io.fits import Header

from astrid_workers.imaging.overscan import Amplifier, Layout, Section, layout_of

#: Suffixes of amplifiers' cards: A to D (two- and four-port read-outs), and numbers.
SUFFIXES = (*"ABCDEFGH", *(str(n) for n in range(1, 17)))
_SECTION = re.compile(r"\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*")
#: An overscan narrower than this gives no level.
_FEWEST_PIXELS = 32


def detector_layout(header: Header, shape: tuple[int, int]) -> Layout | None:
    """The amplifiers of a raw image of `shape` `(ny, nx)`, or None where nothing is to be cut off.

    One channel: BIASSEC with TRIMSEC or DATASEC. Several: DATASECx or TRIMSECx with BIASSECx and GAINx.
    Sections that are absent, malformed, beyond the image or across each other mean an image that was trimmed
    already.
    """
    found = [_amplifier(header, suffix, shape) for suffix in SUFFIXES]
    amplifiers = [one for one in found if one is not None]
    if len(amplifiers) < 2 or _clash(amplifiers):
        single = _amplifier(header, "", shape)
        amplifiers = [] if single is None else [replace(single, factor=1.0)]
    if not amplifiers or _clash(amplifiers):
        return None
    return layout_of(_on_one_gain(amplifiers), shape)


def mean_gain(header: Header, layout: Layout) -> float | None:
    """Mean gain of the amplifiers, in electrons per ADU; None where it is one channel or not all have one."""
    if len(layout.amplifiers) < 2:
        return None
    gains = [_gain(header, s) for s in SUFFIXES if _section(header, "BIASSEC", s) is not None]
    known = [gain for gain in gains if gain is not None]
    return float(np.mean(known)) if len(known) == len(layout.amplifiers) else None


def _amplifier(header: Header, suffix: str, shape: tuple[int, int]) -> Amplifier | None:
    overscan = _section(header, "BIASSEC", suffix)
    data = _section(header, "TRIMSEC", suffix) or _section(header, "DATASEC", suffix)
    if overscan is None or data is None or not (_fits(overscan, shape) and _fits(data, shape)):
        return None
    area = (overscan.y1 - overscan.y0) * (overscan.x1 - overscan.x0)
    if area < _FEWEST_PIXELS or overscan.overlaps(data):
        return None
    return Amplifier(data, overscan, _gain(header, suffix) or 0.0)


def _section(header: Header, card: str, suffix: str) -> Section | None:
    """A section of `[x1:x2,y1:y2]`, 1-based and inclusive; turned ones (x2 < x1) are put right."""
    match = _SECTION.fullmatch(str(header.get(card + suffix, "")))
    if match is None:
        return None
    x1, x2, y1, y2 = (int(word) for word in match.groups())
    return Section(min(y1, y2) - 1, max(y1, y2), min(x1, x2) - 1, max(x1, x2))


def _fits(section: Section, shape: tuple[int, int]) -> bool:
    return 0 <= section.y0 < section.y1 <= shape[0] and 0 <= section.x0 < section.x1 <= shape[1]


def _gain(header: Header, suffix: str) -> float | None:
    value = header.get(f"GAIN{suffix}")
    good = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) and value > 0
    return float(value) if good else None


def _clash(amplifiers: list[Amplifier]) -> bool:
    """Whether any data overlaps another's data or overscan."""
    for i, one in enumerate(amplifiers):
        for j, other in enumerate(amplifiers):
            if i != j and one.data.overlaps(other.data):
                return True
            if other.overscan is not None and one.data.overlaps(other.overscan):
                return True
    return False


def _on_one_gain(amplifiers: list[Amplifier]) -> list[Amplifier]:
    """Factors that bring all amplifiers to their mean gain; 1 where not all gains are known."""
    gains = [one.factor for one in amplifiers]
    if len(amplifiers) < 2 or min(gains) <= 0:
        return [replace(one, factor=1.0) for one in amplifiers]
    return [
        replace(one, factor=gain / float(np.mean(gains))) for one, gain in zip(amplifiers, gains, strict=True)
    ]
