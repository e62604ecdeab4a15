"""Observations that could not be differenced for want of a reference, or of one that covers enough of them.

Owns finding them once a reference has come; never sends anything (the stages do).
"""

from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from astrid_workers.storage.models import DifferenceRun, Observation
from astrid_workers.storage.records import is_stacked_from, pointing_of
from astrid_workers.storage.reference_ranking import SAME_POINTING_DEG, coverage
from astrid_workers.storage.sky_cells import cells_near
from astrid_workers.storage.states import ObservationState, RunStatus

#: Most observations that one reference sets going, oldest first; a guard, far above a night.
MOST_WAITING = 10_000


def waiting_for(session: Session, reference: Observation, most: int = MOST_WAITING) -> list[UUID]:
    """Observations in the reference's filter that it covers, and that ended without a good enough one.

    Those that it was stacked from are not among them.
    """
    pointing = pointing_of(reference)
    reach = (reference.radius_deg or 0.0) + max(_largest_science_radius(session), SAME_POINTING_DEG)
    found_nothing = exists().where(
        DifferenceRun.observation_id == Observation.id,
        DifferenceRun.status == RunStatus.NOTHING_TO_DO,
    )
    near = session.scalars(
        select(Observation)
        .where(
            Observation.is_reference.is_(False),
            Observation.status == ObservationState.PREPROCESSED,
            Observation.filter_band.is_not_distinct_from(reference.filter_band),
            Observation.sky_cell.in_(cells_near(pointing.ra_deg, pointing.dec_deg, min(reach, 90.0))),
            found_nothing,
        )
        .order_by(Observation.observation_time, Observation.id)
    )
    covered = (
        row.id
        for row in near
        if coverage(pointing_of(row), pointing) > 0 and not is_stacked_from(reference, row)
    )
    return [row_id for row_id, _ in zip(covered, range(most), strict=False)]


def _largest_science_radius(session: Session) -> float:
    widest = select(func.max(Observation.radius_deg)).where(Observation.is_reference.is_(False))
    return session.scalar(widest) or 0.0
