"""Which rays of stars to believe, by what is seen along each angle from each star of a frame.

Owns the rule alone: never looks at a pixel. What the supports of a mirror draw goes both ways from a star,
and at the same angles from every star; a row of faint sources and the edge of a galaxy do neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as count_from

import numpy as np
from numpy.typing import NDArray

from astrid_workers.imaging.chance import log_poisson_tail

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Angles that are asked; number k is `direction(k)`.
ANGLES = 180
#: Within so many steps of angle two rays are opposite, or at one angle of the frame's pattern.
SAME_STEPS = 2
#: Rays of a star at most.
MOST_RAYS = 12
#: Natural logarithm of the chance that one angle is taken for a common one: 1 in 10,000 for those of a frame.
LOG_CHANCE = float(np.log(1e-4 / ANGLES))
#: So many steps beside a common angle there are less stars, by this factor at least.
BESIDE, BESIDE_SHARE = 8, 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Sighted:
    """What is seen along each angle from each star of one frame: arrays `(stars, ANGLES)` but the last."""

    #: How sure it is that light goes from the star on along that angle, sigma; -inf: it does not.
    strength: Floats
    #: In how many rings it does.
    length: Indices
    #: Whether enough of that angle is to be seen to tell.
    is_open: BoolImage
    #: Within so many steps two rays of a star are one: `(stars,)`.
    apart: Indices

    @classmethod
    def of(cls, parts: Sequence["Sighted"]) -> "Sighted":
        """Those of several parts of the stars together."""
        columns = ([getattr(part, name) for part in parts] for name in cls.__slots__)
        return cls(*map(np.concatenate, columns))


@dataclass(frozen=True, slots=True)
class Belief:
    """From which strength on a ray is believed, sigma."""

    #: Of the stronger one of two opposite rays, and of the other one.
    stronger: float
    weaker: float
    #: The same of two at an angle at which more stars have light than chance gives.
    common_stronger: float
    common_weaker: float
    #: Of a ray whose opposite is beyond what is to be seen: where another star has two opposite rays at its
    #: angle, and elsewhere.
    cut: float
    cut_alone: float


def direction(angle: Indices | int) -> Floats:
    """Radians from the x axis towards the y axis."""
    return np.asarray((np.asarray(angle) + 0.5) * 2 * np.pi / ANGLES - np.pi)


def believed_rays(sighted: Sighted, belief: Belief) -> list[tuple[int, int]]:
    """Star and angle of each ray that is believed, star after star, the surest ray of each first."""
    strength = sighted.strength
    opposite = _largest_about(np.roll(strength, ANGLES // 2, axis=1))
    stronger, weaker = np.maximum(strength, opposite), np.minimum(strength, opposite)
    in_pair = (stronger > belief.stronger) & (weaker > belief.weaker)
    paired = _largest_about(in_pair.any(axis=0, keepdims=True).astype(float)) > 0
    is_cut = ~np.roll(sighted.is_open, ANGLES // 2, axis=1)
    is_common = common_angles(strength)
    believed = in_pair | (is_common & (stronger > belief.common_stronger) & (weaker > belief.common_weaker))
    believed |= is_cut & (strength > np.where(paired, belief.cut, belief.cut_alone))
    left = np.where(believed, strength, -np.inf)
    return [
        (star, angle)
        for star, (row, apart) in enumerate(zip(left, sighted.apart, strict=True))
        for angle in _surest(row, int(apart))
    ]


def common_angles(strength: Floats) -> BoolImage:
    """Angles `(ANGLES,)` along which, and opposite to which, so many stars have light that it is no chance.

    Chance is the median number of stars over all angles. Where a PSF errs, stars have light along many angles
    beside each other; a ray is narrow.
    """
    stars = np.count_nonzero(np.isfinite(_largest_about(strength)), axis=0)
    both_ways = stars + np.roll(stars, ANGLES // 2)
    expected = max(float(np.median(both_ways)), 0.5)
    fewest = next(count for count in count_from(1) if log_poisson_tail(count - 1, expected) < LOG_CHANCE)
    beside = np.maximum(np.roll(both_ways, BESIDE), np.roll(both_ways, -BESIDE))
    return np.asarray((both_ways >= fewest) & (both_ways > BESIDE_SHARE * beside))


def _largest_about(table: Floats) -> Floats:
    """The largest of the values at angles that are as good as one."""
    turned = [np.roll(table, step, axis=1) for step in range(-SAME_STEPS, SAME_STEPS + 1)]
    return np.asarray(np.max(turned, axis=0))


def _surest(strength: Floats, apart: int) -> list[int]:
    """Angles of the rays of one star, of those with a finite strength."""
    left = strength.copy()
    found: list[int] = []
    while len(found) < MOST_RAYS and np.isfinite(left).any():
        found.append(int(np.argmax(left)))
        left[(found[-1] + np.arange(-apart, apart + 1)) % ANGLES] = -np.inf
    return found
