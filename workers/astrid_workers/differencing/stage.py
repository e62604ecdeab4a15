"""Loading and saving for differencing: two frames in, a difference and its candidates out.

Owns which reference is taken, the rows and artifacts of a run, and what is sent next; never touches a pixel
(`pair.run_pair` does).
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
from sqlalchemy.orm import Session

from astrid_workers import broker
from astrid_workers.differencing import results, rows
from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.differencing.planning import (
    NO_REFERENCE,
    DifferenceWork,
    chosen_options,
    fresh_run,
    named_observation,
    planned_work,
)
from astrid_workers.errors import NothingToDo, ObservationNotThereYet
from astrid_workers.frame import Float32Image, Frame
from astrid_workers.imaging.out_of_core import movable
from astrid_workers.mask import MaskBit
from astrid_workers.metering import Cost, metered
from astrid_workers.pipeline import Stage
from astrid_workers.run_records import Ending, Result, conclude, failures_recorded, take_up
from astrid_workers.settings import ModelSettings
from astrid_workers.storage.artifacts import Artifact, get_store
from astrid_workers.storage.database import get_database
from astrid_workers.storage.detection_records import difference_named
from astrid_workers.storage.fits import frame_from_fits, image_to_fits
from astrid_workers.storage.models import Difference, Observation
from astrid_workers.storage.records import references_for


@dataclass(frozen=True, slots=True, eq=False)
class Differenced:
    """What came out of a pair: products with their cost, or the reason why there was nothing to do."""

    pair: PairResult | None
    cost: Cost
    reason: str | None = None
    numbers: dict[str, float | int | str] | None = None


@dataclass(frozen=True, slots=True)
class StoredImages:
    """Where the images of a difference stand."""

    difference: Artifact
    score: Artifact
    reference: Artifact
    psf: Artifact


def load(
    observation_id: str, reference_id: str | None = None, algorithm: str | None = None
) -> DifferenceWork:
    """Find the pair and take its run up; without `reference_id` the one taken before, or the best there is.

    Raises SettingRejected for an unknown algorithm, ObservationNotThereYet, UnknownObservation.
    """
    options = chosen_options(algorithm)
    database = get_database()
    with database.reading() as session:
        observation = named_observation(session, observation_id, "observation_id")
        reference = None if reference_id is None else named_observation(session, reference_id, "reference_id")
        work = planned_work(session, observation, reference, options)
    if work.settled is None:
        take_up(database, work.ticket, fresh_run(work), has_work=work.nothing is None)
    return work


def run(work: DifferenceWork) -> Differenced | None:
    """Difference the pair; None when the run has ended already."""
    if work.settled is not None:
        return None
    with metered() as cost:
        if work.science is None or work.reference is None:
            return Differenced(None, cost, work.nothing)
        with failures_recorded(get_database(), work.ticket):
            store = get_store()
            science = movable(frame_from_fits(store.get(work.science.key, work.science.sha256)))
            reference = movable(frame_from_fits(store.get(work.reference.key, work.reference.sha256)))
            try:
                pair = run_pair(science, reference, work.options)
            except NothingToDo as nothing:
                return Differenced(None, cost, str(nothing), nothing.numbers)
    return Differenced(pair, cost)


def save(work: DifferenceWork, made: Differenced | None) -> Result:
    """Store the images, then write rows and ending in one transaction; the result that stands afterwards."""
    if made is None:
        assert work.settled is not None
        return work.settled
    database, pair = get_database(), made.pair
    if pair is None:
        return conclude(database, work.ticket, lambda _session: _nothing(work, made))
    with failures_recorded(database, work.ticket):
        stored = _store_images(work, pair)
        return conclude(
            database, work.ticket, lambda session: _written(session, work, pair, made.cost, stored)
        )


def send(work: DifferenceWork, result: Result) -> Result:
    """Send the difference on to detection.

    An observation for which there was no reference looks once more: one that was preprocessed meanwhile
    did not yet see this run among those that wait.
    """
    if result["ending"] == "done":
        message_id = broker.send_next(Stage.DIFFERENCING, result["difference_id"], ModelSettings().model_id)
        return {**result, "processing_triggered": True, "next_message_id": message_id}
    if result["reason"] == NO_REFERENCE and _has_reference_now(work.ticket.observation_id):
        queue_one(str(work.ticket.observation_id))
    return {**result, "processing_triggered": False}


def queue_one(observation_id: str) -> str:
    """Send one observation to differencing; raises UnknownObservation for an id that several surveys have."""
    with suppress(ObservationNotThereYet), get_database().reading() as session:
        named_observation(session, observation_id, "observation_id")
    return broker.send("difference_observation", Stage.DIFFERENCING, observation_id)


def forward(observation_id: str) -> Result:
    """`queue_one`, answered as the earlier actors are."""
    return {
        "observation_id": observation_id,
        "message_id": queue_one(observation_id),
        "status": "queued",
    }


def algorithm_of(result: Result) -> Result:
    """The algorithm section, or the whole result where there was nothing to do."""
    section: Result | None = result["algorithm"]
    return result if section is None else section


def validation_of(difference_id: str) -> Result:
    """The validation section, as it was measured when the difference was made."""
    with get_database().reading() as session:
        return dict(difference_named(session, difference_id).validation or {})


def extraction_of(difference_id: str) -> Result:
    """The extraction section, from the candidates' rows."""
    with get_database().reading() as session:
        difference = difference_named(session, difference_id)
        items = rows.candidate_items(session, difference.id, difference.threshold_sigma)
        set_aside = (difference.numbers or {}).get("set_aside")
        return results.extraction_section(difference.id, items, difference.threshold_sigma, set_aside, _now())


def _nothing(work: DifferenceWork, made: Differenced) -> Ending:
    reference_id = None if work.reference is None else work.reference.observation_id
    reason = made.reason or NO_REFERENCE
    result = results.nothing_to_do(work.ticket.observation_id, work.ticket.run_id, reference_id, reason)
    return Ending(result, reason=reason, numbers=dict(made.numbers or {}))


def _store_images(work: DifferenceWork, pair: PairResult) -> StoredImages:
    store, wcs = get_store(), pair.wcs
    folder = f"differences/{work.ticket.observation_id}/{work.difference_id}"
    made = pair.difference
    return StoredImages(
        difference=store.put(
            f"{folder}/difference.fits", image_to_fits(made.difference, wcs=wcs, cards={"BUNIT": made.unit})
        ),
        score=store.put(f"{folder}/score.fits", image_to_fits(made.score, wcs=wcs, cards={"BUNIT": "sigma"})),
        reference=store.put(
            f"{folder}/reference.fits",
            image_to_fits(_measured(pair.reference), wcs=wcs, cards={"BUNIT": pair.reference.unit}),
        ),
        psf=store.put(f"{folder}/psf.fits", image_to_fits(made.psf)),
    )


def _written(
    session: Session, work: DifferenceWork, pair: PairResult, cost: Cost, stored: StoredImages
) -> Ending:
    observation_id = work.ticket.observation_id
    at = _now()
    validation = results.validation_section(work.difference_id, pair.validation, at)
    session.add(_difference_row(work, pair, stored, validation))
    session.flush()
    zero_point = pair.science.facts.zero_point_mag
    session.add_all(
        rows.candidate_row(work.difference_id, observation_id, found, pair.difference.unit, zero_point)
        for found in pair.candidates.items
    )
    session.flush()
    threshold = pair.candidates.threshold_sigma
    items = rows.candidate_items(session, work.difference_id, threshold)
    assert work.science is not None
    assert work.reference is not None
    result = {
        "ending": "done",
        "observation_id": str(observation_id),
        "reference_id": str(work.reference.observation_id),
        "reference_choice": work.choice,
        "difference_run_id": str(work.ticket.run_id),
        "difference_id": str(work.difference_id),
        "status": "differenced",
        "algorithm": results.algorithm_section(
            observation_id,
            work.difference_id,
            stored.difference.key,
            pair.difference,
            threshold,
            cost,
            at,
        ),
        "validation": validation,
        "extraction": results.extraction_section(
            work.difference_id, items, threshold, pair.candidates.rejected, at
        ),
        "artifacts": {
            "science": {"key": work.science.key, "sha256": work.science.sha256},
            **{name: _named(getattr(stored, name)) for name in ("reference", "difference", "score", "psf")},
        },
        "assumed": list(pair.difference.assumed),
    }
    return Ending(result, numbers={**pair.difference.numbers, "seconds": cost.seconds})


def _measured(frame: Frame) -> Float32Image:
    """The frame's pixels, NaN where nothing was measured."""
    is_measured = (frame.mask & np.uint32(MaskBit.NO_DATA)) == 0
    return np.where(is_measured, frame.science, np.float32(np.nan))


def _named(artifact: Artifact) -> dict[str, str]:
    return {"key": artifact.key, "sha256": artifact.sha256}


def _difference_row(
    work: DifferenceWork, pair: PairResult, stored: StoredImages, validation: Result
) -> Difference:
    made = pair.difference
    assert work.reference is not None
    return Difference(
        id=work.difference_id,
        run_id=work.ticket.run_id,
        observation_id=work.ticket.observation_id,
        reference_id=work.reference.observation_id,
        algorithm=made.algorithm,
        difference_key=stored.difference.key,
        difference_sha256=stored.difference.sha256,
        score_key=stored.score.key,
        score_sha256=stored.score.sha256,
        psf_key=stored.psf.key,
        psf_sha256=stored.psf.sha256,
        threshold_sigma=pair.candidates.threshold_sigma,
        flux_scale=made.flux_scale,
        noise_scale=made.noise_scale,
        fwhm_science_px=made.fwhm_science_px,
        fwhm_reference_px=made.fwhm_reference_px,
        n_candidates=len(pair.candidates),
        validation=validation,
        numbers={**made.numbers, "set_aside": pair.candidates.rejected, "assumed": list(made.assumed)},
    )


def _has_reference_now(observation_id: UUID) -> bool:
    with get_database().reading() as session:
        return bool(references_for(session, session.get_one(Observation, observation_id)))


def _now() -> datetime:
    return datetime.now(UTC)
