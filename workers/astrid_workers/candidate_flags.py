"""The bits in which a candidate's flags are stored.

Owns their names and numbers, which stand in databases and therefore never change; what sets a flag is the
business of extraction, what it means for a candidate that of a model.
"""

from collections.abc import Iterable
from enum import IntFlag


class CandidateFlag(IntFlag):
    """What is remarkable about a candidate; 0 is nothing."""

    #: Positive and negative side by side.
    DIPOLE = 1
    #: Kernels reach over the frame's or footprint's edge.
    EDGE = 2
    #: Touches pixels that are not trusted.
    MASKED = 4
    #: On or beside saturated pixels.
    SATURATED = 8
    #: Narrower than the PSF.
    SHARP = 16
    #: Much wider than the PSF.
    EXTENDED = 32
    #: Overlaps with another candidate.
    BLENDED = 64
    #: Lies on a source of the reference: a host, or a star that varies.
    ON_SOURCE = 128
    #: On the track of a satellite or an aeroplane.
    STREAK = 256
    #: In the halo of a saturated star, or on a spike of a bright one.
    STRAY_LIGHT = 512
    #: One of several in a row, or on a short trail: a satellite or debris that flashes.
    GLINT = 1024


def flags_from(names: Iterable[str]) -> int:
    """The bits of flags given by name; KeyError for a name that has no bit."""
    bits = CandidateFlag(0)
    for name in names:
        bits |= CandidateFlag[name.upper()]
    return int(bits)


def flag_names(bits: int) -> tuple[str, ...]:
    """The names of the bits that are set, in lower case, lowest bit first."""
    return tuple(flag.name.lower() for flag in CandidateFlag if flag & bits and flag.name)
