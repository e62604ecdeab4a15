"""Kubernetes quantities (`500m`, `2Gi`) as exact numbers.

Owns the arithmetic of the suffixes. Decides no rule; the form is checked before.
"""

import re
from fractions import Fraction

_SUFFIX = {
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}


def quantity(written: int | str) -> Fraction:
    """The amount that `written` stands for, in the resource's own unit (cores, bytes, devices)."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(written))
    if match is None or match[2] not in _SUFFIX:
        sentence = f"{written!r} is not a quantity"
        raise ValueError(sentence)
    return Fraction(match[1]) * _SUFFIX[match[2]]
