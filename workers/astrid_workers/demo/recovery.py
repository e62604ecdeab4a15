"""What of the injected transients was found, and what was found that is not there.

Owns the matching of candidates with the truth; never reads a row or a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bounds of the S/N bins that the summary speaks of.
SNR_BINS: tuple[float, ...] = (5.0, 7.0, 10.0, 15.0, 25.0, 50.0)


@dataclass(frozen=True, slots=True)
class Found:
    """One candidate as the pipeline delivered it: 0-based pixels of the science frame."""

    x: float
    y: float
    is_positive: bool
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Recovery:
    """The matching of one observation."""

    #: Per injected transient.
    recovered: NDArray[np.bool_]
    snr: NDArray[np.float64]
    #: Candidates without a transient, a second one at the same transient included.
    n_false: int
    area_mpix: float


@dataclass(frozen=True, slots=True)
class RecoverySummary:
    """Many observations together; None where nothing was there to be measured."""

    injected: int
    recovered: int
    above_snr10_fraction: float | None
    n_false: int
    false_per_mpix: float | None
    #: (low, high, injected, recovered) per S/N bin.
    by_snr: tuple[tuple[float, float, int, int], ...]


def match(truth: NDArray[Any], found: Sequence[Found], *, radius_px: float, area_mpix: float) -> Recovery:
    """Pair each transient with the nearest candidate of its sign within `radius_px`, brightest first.

    `truth` has the fields `x, y, sign, snr_local`. A candidate serves one transient only.
    """
    recovered = np.zeros(len(truth), np.bool_)
    x, y = (np.array([getattr(one, axis) for one in found], float) for axis in ("x", "y"))
    is_positive = np.array([one.is_positive for one in found], np.bool_)
    free = np.ones(len(found), np.bool_)
    for index in np.argsort(-truth["snr_local"]):
        row = truth[index]
        distance = np.hypot(x - row["x"], y - row["y"])
        allowed = free & (distance <= radius_px) & (is_positive == (row["sign"] > 0))
        if allowed.any():
            free[np.argmin(np.where(allowed, distance, np.inf))] = False
            recovered[index] = True
    return Recovery(recovered, truth["snr_local"].astype(float), int(free.sum()), area_mpix)


def summarise(recoveries: Sequence[Recovery]) -> RecoverySummary:
    """Add up the observations."""
    recovered = np.concatenate([one.recovered for one in recoveries]) if recoveries else np.zeros(0, np.bool_)
    snr = np.concatenate([one.snr for one in recoveries]) if recoveries else np.zeros(0)
    bright = snr >= 10
    area = sum(one.area_mpix for one in recoveries)
    n_false = sum(one.n_false for one in recoveries)
    bins = tuple(
        (low, high, int(inside.sum()), int(recovered[inside].sum()))
        for low, high in pairwise(SNR_BINS)
        if (inside := (snr >= low) & (snr < high)).any()
    )
    return RecoverySummary(
        injected=len(snr),
        recovered=int(recovered.sum()),
        above_snr10_fraction=float(recovered[bright].mean()) if bright.any() else None,
        n_false=n_false,
        false_per_mpix=n_false / area if area else None,
        by_snr=bins,
    )
