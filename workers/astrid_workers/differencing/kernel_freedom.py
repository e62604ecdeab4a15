"""How much freedom a matching kernel may have, as the sources that it was not fitted to judge it.

Owns the fit from normal equations, its robust choice of sources, and the choice of degree and order by
cross-validation; never sees a pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.imaging.psf import polynomial

Floats = NDArray[np.float64]

#: Highest degrees of the basis' polynomials that are tried, least freedom first.
DEGREES = (1, 2, 4)
#: Parts that the sources are dealt to; each is judged by a fit to the others.
FOLDS = 4
#: More freedom must lower the residual of unknown sources by this share.
WORTHWHILE = 0.997
#: Sources per unknown below which a choice is not even tried.
SOURCES_PER_UNKNOWN = 0.6
#: A source's chi² counts no more than this many medians: one variable star must not decide.
CLIP = 8.0
MIN_SOURCES = 3


@dataclass(frozen=True, slots=True, eq=False)
class KernelEquations:
    """Per source, for the whole basis: what any fit needs. chi² of coefficients c is total − 2 c·right +
    c·normal·c.
    """

    #: float64 `(n, n_basis, n_basis)`, `(n, n_basis)` and `(n,)`.
    normal: Floats
    right: Floats
    total: Floats
    #: Pixels per source.
    n_pixels: int
    #: About science over reference flux, to scale priors.
    gain: float


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A fit and how far it can be believed."""

    #: Columns of the basis that were used.
    members: NDArray[np.intp]
    order: int
    #: float64 `(n_terms, n_members)`.
    coefficients: Floats
    kept: NDArray[np.bool_]
    #: Median reduced chi² of kept sources.
    chi2: float
    overfit: float


def choose_freedom(
    equations: KernelEquations,
    x: Floats,
    y: Floats,
    frame_shape: tuple[int, int],
    degrees: NDArray[np.intp],
    held: Floats,
    max_order: int,
) -> Choice:
    """The simplest kernel that unknown sources like best, fitted to all that agree with it.

    `held` is the precision of a prior about 0 per member of the basis.
    """
    best: tuple[float, int, int] | None = None
    n = len(x)
    kept = _agreeing(equations, *_columns(equations, degrees, x, y, frame_shape, held, 1 if n >= 8 else 0, 0))
    for order in range(max_order + 1):
        for degree in DEGREES:
            parts = _columns(equations, degrees, x, y, frame_shape, held, degree, order)
            unknowns = len(parts[0]) * parts[1].shape[1]
            if best is not None and n < SOURCES_PER_UNKNOWN * unknowns:
                continue
            judged = _cross_validated(equations, *parts, kept)
            if best is None or judged < WORTHWHILE * best[0]:
                best = (judged, degree, order)
    assert best is not None
    parts = _columns(equations, degrees, x, y, frame_shape, held, best[1], best[2])
    kept = _agreeing(equations, *parts)
    coefficients = _solve(equations, *parts, kept)
    chi2 = _chi2(equations, parts[0], parts[1] @ coefficients)[kept]
    unknown = _cross_validated(equations, *parts, kept)
    overfit = max(1.0, float(np.sqrt(unknown / max(_clipped_mean(chi2), 1e-12))))
    return Choice(parts[0], best[2], coefficients, kept, float(np.median(chi2)), overfit)


def _columns(
    equations: KernelEquations,
    degrees: NDArray[np.intp],
    x: Floats,
    y: Floats,
    frame_shape: tuple[int, int],
    held: Floats,
    degree: int,
    order: int,
) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Members of the basis up to a degree, polynomials of position up to an order, the members' priors."""
    members = np.flatnonzero(degrees[: equations.right.shape[1]] <= degree)
    return members, polynomial(x, y, frame_shape, order), held[members]


def _solve(
    equations: KernelEquations,
    members: NDArray[np.intp],
    where: Floats,
    held: Floats,
    kept: NDArray[np.bool_],
) -> Floats:
    normal = equations.normal[np.ix_(np.flatnonzero(kept), members, members)]
    right = equations.right[np.ix_(np.flatnonzero(kept), members)]
    terms, n = where.shape[1], len(members)
    big = np.einsum("np,nq,nij->piqj", where[kept], where[kept], normal, optimize=True).reshape(terms * n, -1)
    side = np.einsum("np,ni->pi", where[kept], right).ravel()
    diagonal = np.diag_indices(len(big))
    ridge = 1e-9 * float(np.mean(big[diagonal]))
    big[diagonal] = big[diagonal] * (1 + 1e-8) + np.tile(held, terms) + ridge
    return np.linalg.solve(big, side).reshape(terms, n)


def _chi2(equations: KernelEquations, members: NDArray[np.intp], local: Floats) -> Floats:
    """Reduced chi² of each source under its own coefficients `(n, n_members)`."""
    right = equations.right[:, members]
    normal = equations.normal[:, members[:, None], members[None, :]]
    quadratic = np.einsum("ni,nij,nj->n", local, normal, local, optimize=True)
    return np.asarray((equations.total - 2 * np.sum(local * right, axis=1) + quadratic) / equations.n_pixels)


def _agreeing(
    equations: KernelEquations, members: NDArray[np.intp], where: Floats, held: Floats
) -> NDArray[np.bool_]:
    """Sources whose chi² is like the others', found by leaving out what is not, again and again."""
    kept = np.ones(len(equations.total), bool)
    for _ in range(4):
        chi2 = _chi2(equations, members, where @ _solve(equations, members, where, held, kept))
        middle = float(np.median(chi2[kept]))
        spread = 1.4826 * float(np.median(np.abs(chi2[kept] - middle)))
        agree = chi2 < middle + 5 * max(spread, 0.2)
        if np.count_nonzero(agree) < MIN_SOURCES or np.array_equal(agree, kept):
            break
        kept = agree
    return kept


def _cross_validated(
    equations: KernelEquations,
    members: NDArray[np.intp],
    where: Floats,
    held: Floats,
    kept: NDArray[np.bool_],
) -> float:
    """Clipped mean chi² of sources under fits that do not know them."""
    fold = np.arange(len(kept)) % FOLDS
    chi2 = np.full(len(kept), np.nan)
    for number in range(FOLDS):
        others, own = kept & (fold != number), kept & (fold == number)
        if np.count_nonzero(others) < MIN_SOURCES or not own.any():
            continue
        local = where @ _solve(equations, members, where, held, others)
        chi2[own] = _chi2(equations, members, local)[own]
    known = chi2[np.isfinite(chi2)]
    return _clipped_mean(known) if known.size else float("inf")


def _clipped_mean(chi2: Floats) -> float:
    return float(np.mean(np.minimum(chi2, CLIP * np.median(chi2))))
