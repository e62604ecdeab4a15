"""The rows of a difference and its candidates.

Owns their derived ids and how a product becomes a row and a row an item of a result; never computes a pixel.
"""

from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from astrid_workers.candidate_flags import flag_names, flags_from
from astrid_workers.differencing.forced_photometry import magnitudes
from astrid_workers.differencing.products import Candidate as FoundCandidate
from astrid_workers.identity import derived_uuid
from astrid_workers.storage.models import MAGNITUDES, Candidate
from astrid_workers.storage.sky_cells import cell_of


def candidate_row(
    difference_id: UUID,
    observation_id: UUID,
    found: FoundCandidate,
    unit: str,
    zero_point_mag: float | None,
) -> Candidate:
    """The row of one candidate; its id comes from the difference and its rank.

    `zero_point_mag` is the magnitude of a flux of 1 in `unit`; without one the row has no magnitudes.
    """
    ra_deg, dec_deg = found.ra_deg, found.dec_deg
    return Candidate(
        id=derived_uuid("candidate", str(difference_id), str(found.index)),
        difference_id=difference_id,
        observation_id=observation_id,
        index=found.index,
        x=found.x,
        y=found.y,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        sky_cell=None if ra_deg is None or dec_deg is None else cell_of(ra_deg, dec_deg),
        flux=found.flux,
        flux_err=found.flux_err,
        unit=unit,
        snr=found.snr,
        score=found.score,
        fwhm_px=found.fwhm_px,
        elongation=found.elongation,
        flags=flags_from(found.flags),
        is_positive=found.is_positive,
        numbers={
            "x_err": found.x_err,
            "y_err": found.y_err,
            "chi2": found.chi2,
            **_magnitudes(found, zero_point_mag),
        },
    )


def _magnitudes(found: FoundCandidate, zero_point_mag: float | None) -> dict[str, float | None]:
    """Magnitude, its error and the 5-sigma limit at the place, as in candidates.ecsv; None: not known."""
    values = magnitudes(np.array([found.flux]), np.array([found.flux_err]), zero_point_mag)
    known = (float(value[0]) for value in values)
    return {
        name: value if np.isfinite(value) else None for name, value in zip(MAGNITUDES, known, strict=True)
    }


def candidate_items(
    session: Session, difference_id: UUID, threshold_sigma: float | None
) -> list[dict[str, Any]]:
    """All candidates of a difference as items of a result, strongest first."""
    rows = session.scalars(
        select(Candidate).where(Candidate.difference_id == difference_id).order_by(Candidate.index)
    )
    return [_item(row, threshold_sigma) for row in rows]


def _item(row: Candidate, threshold_sigma: float | None) -> dict[str, Any]:
    return {
        "candidate_id": str(row.id),
        "ra": row.ra_deg,
        "dec": row.dec_deg,
        "x": row.x,
        "y": row.y,
        "flux": row.flux,
        "flux_err": row.flux_err,
        "unit": row.unit,
        **row.magnitudes,
        "snr": row.snr,
        "candidate_type": "brightening" if row.is_positive else "fading",
        "score": row.score,
        "detection_threshold": threshold_sigma,
        "flags": list(flag_names(row.flags)),
    }
