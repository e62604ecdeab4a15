"""Glints among candidates: flashes of sunlight from satellites and debris that turn.

Owns which candidates are flagged `glint`: those in a row of their sign and those whose light is a short
trail. Never drops one. A single flash looks like any point source, and nothing here says otherwise.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from astrid_workers.differencing.neighbours import blends
from astrid_workers.differencing.products import ON_SOURCE_SIGMA, Candidate, Difference
from astrid_workers.imaging.aligned_points import aligned_points
from astrid_workers.imaging.streaks import Streak
from astrid_workers.imaging.trails import fitted_trail

#: What lies in lines or in pairs for another reason is no evidence of a row, nor of a trail.
OTHERWISE_EXPLAINED = frozenset({"dipole", "edge", "masked", "saturated", "streak", "stray_light"})
#: Elongation and S/N of a candidate that stands alone from which its light may be a trail, if it is not
#: `extended`: a fainter one cannot be told from a point.
ELONGATED, TELLING_SNR = 1.15, 8.0
#: Beside a trail by less than this, in FWHM, candidates are made of its light.
BESIDE_FWHM = 1.0


def flag_glints(found: Sequence[Candidate], difference: Difference) -> list[Candidate]:
    """The same candidates in their order, with `glint` on those in a row and on those on a short trail.

    Trails are told first: what lies on one is no point, so it is left out of rows.
    """
    on_trails = _on_trails(found, difference)
    in_rows = _in_rows(found, difference, on_trails)
    glints = on_trails | in_rows
    return [
        replace(each, flags=(*each.flags, "glint")) if i in glints else each for i, each in enumerate(found)
    ]


def _on_trails(found: Sequence[Candidate], difference: Difference) -> set[int]:
    """Indices of candidates on short trails of their sign."""
    together = {i: group for group in blends(found, difference) for i in group}
    on: set[int] = set()
    asked: set[int] = set()
    for i, candidate in enumerate(found):
        if i in asked or OTHERWISE_EXPLAINED.intersection(candidate.flags):
            continue
        group = together.get(i, [i])
        asked.update(group)
        if len(group) == 1 and not _may_be_trailed(candidate):
            continue
        brightest = max(group, key=lambda k: abs(found[k].score))
        trail = _trail(found[brightest], difference)
        if trail is not None:
            on |= _beside(found, trail, found[brightest].is_positive, difference.fwhm_science_px)
    return on


def _may_be_trailed(candidate: Candidate) -> bool:
    """Whether its shape alone allows it; what has no elongation was too wide for one."""
    long = candidate.elongation is None or candidate.elongation > ELONGATED
    return "extended" in candidate.flags or (long and candidate.snr > TELLING_SNR)


def _trail(candidate: Candidate, difference: Difference) -> Streak | None:
    """The trail that a candidate's light is; none where the reference has light all along it."""
    psf, _ = difference.kernels.at(candidate.x, candidate.y)
    trail = fitted_trail(
        difference.difference,
        difference.variance,
        difference.unmasked_score,
        psf,
        (round(candidate.y), round(candidate.x)),
        difference.fwhm_science_px,
    )
    return None if trail is None or _is_on_light(trail, difference) else trail


def _is_on_light(trail: Streak, difference: Difference) -> bool:
    """Whether half of a trail or more lies on what was subtracted: a galaxy on edge leaves such a shape."""
    share = np.linspace(0, 1, max(round(trail.length_px), 2))
    x, y = trail.x0 + share * (trail.x1 - trail.x0), trail.y0 + share * (trail.y1 - trail.y0)
    ny, nx = difference.shape
    rows = np.clip(np.rint(y).astype(int), 0, ny - 1)
    columns = np.clip(np.rint(x).astype(int), 0, nx - 1)
    return bool(np.median(np.abs(difference.subtracted_light[rows, columns])) > ON_SOURCE_SIGMA)


def _beside(found: Sequence[Candidate], trail: Streak, is_positive: bool, fwhm_px: float) -> set[int]:
    """Indices of candidates of one sign on a trail."""
    along, across = trail.along_and_across(
        np.array([c.x for c in found], float), np.array([c.y for c in found], float)
    )
    reach = BESIDE_FWHM * fwhm_px
    on = (np.abs(across) < reach) & (along > -reach) & (along < trail.length_px + reach)
    return {i for i, c in enumerate(found) if on[i] and c.is_positive == is_positive}


def _in_rows(found: Sequence[Candidate], difference: Difference, on_trails: set[int]) -> set[int]:
    """Indices of candidates in rows of their sign; of those that stand together the brightest is asked."""
    fainter = {
        i
        for group in blends(found, difference)
        for i in group
        if i != max(group, key=lambda k: abs(found[k].score))
    }
    in_rows: set[int] = set()
    for is_positive in (True, False):
        asked = [
            i
            for i, c in enumerate(found)
            if c.is_positive == is_positive
            and i not in fainter
            and i not in on_trails
            and not OTHERWISE_EXPLAINED.intersection(c.flags)
        ]
        x, y, x_err, y_err = (
            np.array([getattr(found[i], name) for i in asked]) for name in ("x", "y", "x_err", "y_err")
        )
        rows = aligned_points(x, y, np.hypot(x_err, y_err) / np.sqrt(2), float(difference.score.size))
        in_rows |= {asked[k] for row in rows for k in row.members}
    return in_rows
