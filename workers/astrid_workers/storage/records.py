"""Queries that several stages share.

Owns how an observation is named and which references suit it; never decides a state and never commits.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import SQLColumnExpression, exists, func, select, true
from sqlalchemy.orm import Session

from astrid_workers.errors import NothingToDo, ObservationNotThereYet, UnknownObservation
from astrid_workers.identity import uuid_given
from astrid_workers.storage.models import Observation, PreprocessRun, Survey
from astrid_workers.storage.reference_ranking import (
    SAME_POINTING_DEG,
    Pointing,
    ReferenceFacts,
    ranked,
    reason_of,
)
from astrid_workers.storage.sky_cells import cells_near, centre_of, separation_deg
from astrid_workers.storage.states import ObservationState, RunStatus


def find_observation(session: Session, ref: str) -> Observation:
    """The observation with this id, or with this external id where exactly one survey has it.

    Raises ObservationNotThereYet where there is none, UnknownObservation, listing the surveys, where there
    are several.
    """
    given = uuid_given(ref)
    by_id = session.get(Observation, given) if given is not None else None
    if by_id is not None:
        return by_id
    found = session.scalars(select(Observation).where(Observation.external_id == ref)).all()
    if not found:
        msg = f"there is no observation {ref} yet"
        raise ObservationNotThereYet(msg)
    if len(found) > 1:
        msg = f"observation {ref} is in {len(found)} surveys: {_surveys_of(session, found)}; give its UUID"
        raise UnknownObservation(msg, n_surveys=len(found))
    return found[0]


def refuse_mosaic(observation: Observation) -> None:
    """Raise UnknownObservation for a mosaic where the frame of one of its parts is needed."""
    if observation.n_parts:
        msg = (
            f"observation {observation.external_id} is a mosaic of {observation.n_parts} parts:"
            f" name one of them, as {observation.external_id}[…]"
        )
        raise UnknownObservation(msg, n_parts=observation.n_parts)


def references_for(session: Session, observation: Observation) -> list[Observation]:
    """References that cover the observation's field in its filter and are preprocessed, best first."""
    return [reference for reference, _ in references_with_coverage(session, observation)]


def references_with_coverage(session: Session, observation: Observation) -> list[tuple[Observation, float]]:
    """As `references_for`, each with the share of the field that it covers, 0..1."""
    candidates, order = _ranked_references(session, observation)
    return [(candidates[reference.observation_id], share) for reference, share in order]


#: Most references that a choice lists.
MOST_CONSIDERED = 10


def reference_choice(session: Session, observation: Observation) -> tuple[Observation, dict[str, Any]] | None:
    """The reference that suits the observation best, and why: `{reason, n_references, considered: […]}`.

    None where no reference covers any of its field.
    """
    candidates, order = _ranked_references(session, observation)
    if not order:
        return None
    considered = [
        {
            "observation_id": str(facts.observation_id),
            "external_observation_id": facts.name,
            "coverage": share,
            "limiting_magnitude": facts.limiting_magnitude,
            "exposure_time_s": facts.exposure_time_s,
            "fwhm_arcsec": facts.fwhm_arcsec,
        }
        for facts, share in order[:MOST_CONSIDERED]
    ]
    told = {"reason": reason_of(order), "n_references": len(order), "considered": considered}
    return candidates[order[0][0].observation_id], told


def _ranked_references(
    session: Session, observation: Observation
) -> tuple[dict[UUID, Observation], list[tuple[ReferenceFacts, float]]]:
    rows = _reference_candidates(session, observation)
    candidates = {row.id: row for row in rows if not is_stacked_from(row, observation)}
    order = ranked(pointing_of(observation), [reference_facts(row) for row in candidates.values()])
    return candidates, order


def is_stacked_from(reference: Observation, observation: Observation) -> bool:
    """Whether the observation is in the stack: its noise would be on both sides of a difference."""
    return str(observation.id) in (reference.stack or {}).get("members", ())


def part_for(session: Session, observation: Observation, reference: Observation) -> Observation:
    """Of a mosaic `reference` the part that suits the observation best; any other is given back as it is.

    Raises NothingToDo where no part covers any of the observation's field.
    """
    if not reference.n_parts:
        return reference
    parts = {row.id: row for row in parts_of_mosaic(session, reference.id)}
    order = ranked(pointing_of(observation), [reference_facts(row) for row in parts.values()])
    if not order:
        msg = f"no part of {reference.external_id} covers this field"
        raise NothingToDo(msg, n_parts=len(parts))
    return parts[order[0][0].observation_id]


def observations_near(
    session: Session, ra_deg: float, dec_deg: float, radius_deg: float
) -> list[tuple[Observation, float]]:
    """Observations whose centre lies within the cone, nearest first, each with its distance in degrees."""
    near = select(Observation).where(Observation.sky_cell.in_(cells_near(ra_deg, dec_deg, radius_deg)))
    distances = ((row, _distance(row, ra_deg, dec_deg)) for row in session.scalars(near))
    return sorted(((row, d) for row, d in distances if d <= radius_deg), key=lambda pair: pair[1])


def pointing_of(observation: Observation) -> Pointing:
    """Where the observation looks: the middle of its corners, or without a WCS the position it came with."""
    if observation.footprint is None:
        return Pointing(observation.ra_deg, observation.dec_deg, part=observation.part)
    ra_deg, dec_deg = centre_of(observation.footprint)
    return Pointing(ra_deg, dec_deg, observation.footprint, observation.part)


def parts_of_mosaic(session: Session, mosaic_id: UUID) -> list[Observation]:
    """The rows of a mosaic's parts, in the order in which they stand in its file."""
    parts = session.scalars(select(Observation).where(Observation.mosaic_id == mosaic_id)).all()
    return sorted(parts, key=lambda row: (row.part_hdu or 0, row.external_id))


def survey_names(session: Session, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Names of the surveys with these ids."""
    return {row.id: row.name for row in session.scalars(select(Survey).where(Survey.id.in_(ids)))}


def _surveys_of(session: Session, observations: Sequence[Observation]) -> str:
    names = survey_names(session, [row.survey_id for row in observations])
    return ", ".join(sorted(f"{names[row.survey_id]} ({row.id})" for row in observations))


def _reference_candidates(session: Session, observation: Observation) -> Sequence[Observation]:
    pointing = pointing_of(observation)
    reach = (observation.radius_deg or 0.0) + max(
        _largest_radius(session, Observation.is_reference), SAME_POINTING_DEG
    )
    return session.scalars(
        select(Observation).where(
            Observation.is_reference,
            Observation.sky_cell.in_(cells_near(pointing.ra_deg, pointing.dec_deg, min(reach, 90.0))),
            Observation.id != observation.id,
            Observation.filter_band.is_not_distinct_from(observation.filter_band),
            Observation.status != ObservationState.ARCHIVED,
            _IS_PREPROCESSED,
        )
    ).all()


def preprocessed_near(session: Session, ra_deg: float, dec_deg: float) -> Sequence[Observation]:
    """Preprocessed frames that may hold the position, and perhaps a few that do not."""
    reach = max(_largest_radius(session, true()), SAME_POINTING_DEG)
    near = Observation.sky_cell.in_(cells_near(ra_deg, dec_deg, min(reach, 90.0)))
    return session.scalars(select(Observation).where(near, _IS_PREPROCESSED)).all()


_IS_PREPROCESSED = exists().where(
    PreprocessRun.observation_id == Observation.id, PreprocessRun.status == RunStatus.COMPLETED
)


def _largest_radius(session: Session, of: SQLColumnExpression[bool]) -> float:
    return session.scalar(select(func.max(Observation.radius_deg)).where(of)) or 0.0


def reference_facts(reference: Observation) -> ReferenceFacts:
    """What an observation is ranked by."""
    quality = reference.quality or {}
    return ReferenceFacts(
        observation_id=reference.id,
        pointing=pointing_of(reference),
        observation_time=reference.observation_time,
        limiting_magnitude=quality.get("limiting_magnitude"),
        exposure_time_s=reference.exposure_time_s,
        fwhm_arcsec=quality.get("fwhm_arcsec") or reference.seeing_arcsec,
        name=reference.external_id,
    )


def _distance(observation: Observation, ra_deg: float, dec_deg: float) -> float:
    pointing = pointing_of(observation)
    return separation_deg(pointing.ra_deg, pointing.dec_deg, ra_deg, dec_deg)
