"""How probable a count is by chance.

Owns the tail of Poisson's distribution alone, so that nobody has to import all of `scipy.stats` for it: a
fifth of what a command's imports cost.
"""

import numpy as np
from scipy.special import pdtrc


def log_poisson_tail(count: int, expected: float) -> float:
    """Natural logarithm of the probability that a Poisson count of mean `expected` exceeds `count`; -inf
    where float64 holds it no more. A negative `count` is exceeded for certain.
    """
    if count < 0:
        return 0.0
    probability = float(pdtrc(count, expected))
    return float(np.log(probability)) if probability > 0 else -np.inf
