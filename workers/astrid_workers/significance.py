"""How much attention a significance deserves, in one word.

Owns the two thresholds behind severity, priority and confidence classes; never looks at pixels or rows.
"""

from typing import Literal

Priority = Literal["high", "medium", "low"]

#: |score| in sigma from which a detection is of high priority: photometry to 5 %, hardly ever noise.
HIGH_SCORE_SIGMA = 20.0
#: |score| in sigma from which a detection is of medium priority: photometry to 10 %.
MEDIUM_SCORE_SIGMA = 10.0


def priority_of(score: float) -> Priority:
    """High from 20 sigma of either sign, medium from 10, else low."""
    strength = abs(score)
    if strength >= HIGH_SCORE_SIGMA:
        return "high"
    return "medium" if strength >= MEDIUM_SCORE_SIGMA else "low"
