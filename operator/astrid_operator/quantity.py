"""Kubernetes quantities (`500m`, `2Gi`, `1e1`) as exact numbers.

Owns the grammar and the arithmetic of the suffixes. Decides no rule, and checks no form that is narrower.
"""

import re
from fractions import Fraction

_SUFFIX = {
    **{letter: Fraction(1, 1000**power) for power, letter in enumerate("mun", start=1)},
    "": Fraction(1),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}

#: A decimal number, then a suffix or a decimal exponent. No exponent of more than three digits is worked out:
#: a few characters would cost seconds, and Kubernetes knows no amount beyond 2^63.
_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:[eE](?P<exponent>[+-]?0*[0-9]{1,3})|(?P<suffix>[A-Za-z]*))"
)


def quantity(written: int | str) -> Fraction:
    """The amount that `written` stands for, in the resource's own unit (cores, bytes, devices).

    Takes all that Kubernetes takes; raises ValueError for anything else.
    """
    match = _FORM.fullmatch(str(written))
    if match is None or (match["suffix"] or "") not in _SUFFIX:
        sentence = f"{written!r} is not a quantity"
        raise ValueError(sentence)
    if match["exponent"]:
        return Fraction(match["number"]) * Fraction(10) ** int(match["exponent"])
    return Fraction(match["number"]) * _SUFFIX[match["suffix"]]
