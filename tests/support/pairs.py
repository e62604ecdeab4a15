"""Simulated pairs and their differences, made once per session however many tests look at them."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from astrid_workers.differencing.difference import difference
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.products import Candidate, Candidates, Difference, DifferenceOptions
from astrid_workers.differencing.validate import validate_difference
from astrid_workers.sky import Sky, make_sky


@dataclass(frozen=True, slots=True, eq=False)
class MadePair:
    """A sky with truth and what was made of it."""

    sky: Sky
    difference: Difference
    candidates: Candidates

    def matched(self, within_px: float = 2.5) -> list[tuple[Any, Candidate]]:
        """(truth row, candidate) for every injection that was found with its sign."""
        pairs = []
        for row in self.sky.truth:
            near = [
                c
                for c in self.candidates.items
                if np.hypot(c.x - row["x"], c.y - row["y"]) < within_px and c.is_positive == (row["sign"] > 0)
            ]
            if near:
                pairs.append((row, near[0]))
        return pairs

    def false_ones(self, within_px: float = 4.0) -> list[Candidate]:
        """Candidates that no injection explains."""
        truth = self.sky.truth
        return [
            c
            for c in self.candidates.items
            if not np.any(np.hypot(truth["x"] - c.x, truth["y"] - c.y) < within_px)
        ]


@lru_cache(maxsize=32)
def make_pair(algorithm: str = "zogy", threshold: float = 5.0, **settings: Any) -> MadePair:
    """Simulate, subtract, extract; the frames share one grid unless `settings` say otherwise."""
    defaults = {"seed": 1, "shape": (384, 384), "n_stars": 80, "n_transients": 0}
    sky = make_sky(**{**defaults, **settings})
    options = DifferenceOptions(algorithm=algorithm, threshold_sigma=threshold)  # type: ignore[arg-type]
    made = difference(sky.science, sky.reference, options=options)
    return MadePair(sky, made, extract_sources(made, threshold_sigma=threshold, wcs=sky.science.wcs))


def sky_statistics(made: Difference) -> Any:
    """The validation numbers of a difference."""
    return validate_difference(made)
