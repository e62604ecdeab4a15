"""A reference for a field, stacked from the observations of it that are in the database.

Owns which observations serve, the rows and artifact of the reference, and who is told; the science is
`build_reference`. Its id is derived from the frames that it was asked to take: a repeat finds it there and
only sets going again what waits for it.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from astrid_workers import broker
from astrid_workers.defaults import MOST_STACKED, SURVEY
from astrid_workers.differencing.build_reference import Reference, build_reference
from astrid_workers.errors import NothingToDo, SettingRejected
from astrid_workers.frame import Frame
from astrid_workers.identity import STAGE_VERSION, derived_uuid, observation_uuid
from astrid_workers.metering import Cost, metered
from astrid_workers.pipeline import Stage
from astrid_workers.run_records import Result
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.column_types import plain_json
from astrid_workers.storage.database import get_database
from astrid_workers.storage.fits import frame_from_fits, frame_to_fits
from astrid_workers.storage.frame_records import StoredFrame, preprocessed_frame
from astrid_workers.storage.models import Observation, PreprocessRun, Survey
from astrid_workers.storage.records import preprocessed_near, reference_facts
from astrid_workers.storage.reference_ranking import Pointing, ranked
from astrid_workers.storage.states import ObservationState, RunStatus
from astrid_workers.storage.waiting_observations import waiting_for

#: Fewest and most frames of a stack that may be asked for.
FEWEST, MOST = 2, 200
#: Keys of a request: `ra` and `dec` (degrees) lie on the field, `filter_band` may be null.
REQUEST_KEYS = ("survey_id", "ra", "dec", "filter_band", "most")


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """Which field and filter a reference is wanted for."""

    survey: str
    ra_deg: float
    dec_deg: float
    filter_band: str | None
    most: int = MOST_STACKED


@dataclass(frozen=True, slots=True)
class StackWork:
    """The frames to stack, best first, and the reference that they will be; `is_there`: it stands already."""

    reference_id: UUID
    external_id: str
    frames: tuple[StoredFrame, ...]
    inputs_sha256: str
    is_there: bool


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """What came out."""

    reference: Reference
    #: Frames that are in the stack, in its order.
    members: tuple[StoredFrame, ...]
    cost: Cost


def parsed_request(data: object) -> ReferenceRequest:
    """The request in a message; SettingRejected names what is wrong with it."""
    if not isinstance(data, Mapping):
        keys = ", ".join(REQUEST_KEYS)
        msg = f"a request for a reference is an object with {keys}, got {type(data).__name__}"
        raise SettingRejected(msg)
    unknown = sorted(str(key) for key in data if key not in REQUEST_KEYS)
    if unknown:
        msg = f"a request for a reference has {', '.join(unknown)}; expected {', '.join(REQUEST_KEYS)}"
        raise SettingRejected(msg)
    survey, band, most = (
        data.get("survey_id", SURVEY),
        data.get("filter_band"),
        data.get("most", MOST_STACKED),
    )
    if not isinstance(survey, str) or not (band is None or isinstance(band, str)):
        msg = f"survey_id and filter_band must be text, got {survey!r:.60} and {band!r:.60}"
        raise SettingRejected(msg)
    if isinstance(most, bool) or not isinstance(most, int) or not FEWEST <= most <= MOST:
        msg = f"most must be a whole number from {FEWEST} to {MOST}, got {most!r:.60}"
        raise SettingRejected(msg)
    ra, dec = _angle(data.get("ra"), "ra", 0, 360), _angle(data.get("dec"), "dec", -90, 90)
    return ReferenceRequest(survey, ra % 360, dec, band, most)


def load(request: ReferenceRequest) -> StackWork:
    """The preprocessed observations on whose frame the position lies: deepest first, as references are.

    Raises NothingToDo where there are fewer than two.
    """
    with get_database().reading() as session:
        survey = session.scalars(select(Survey).where(Survey.name == request.survey)).first()
        rows = [] if survey is None else _serving(session, survey.id, request)
        if survey is None or len(rows) < FEWEST:
            band = "no filter" if request.filter_band is None else f"filter {request.filter_band}"
            msg = (
                f"{len(rows)} preprocessed observations of survey {request.survey} in {band} lie on"
                f" {request.ra_deg:.5f} {request.dec_deg:+.5f}, need {FEWEST}"
            )
            raise NothingToDo(msg, observations=len(rows))
        frames = tuple(preprocessed_frame(session, row) for row in rows)
        named = (STAGE_VERSION[Stage.DIFFERENCING], *sorted(f"{f.observation_id}={f.sha256}" for f in frames))
        sha256 = hashlib.sha256("\n".join(named).encode()).hexdigest()
        external_id = f"ref_stack_{sha256[:16]}"
        reference_id = observation_uuid(survey.id, external_id)
        return StackWork(
            reference_id, external_id, frames, sha256, session.get(Observation, reference_id) is not None
        )


def run(work: StackWork) -> Stacked | None:
    """Stack the frames, one in memory at a time; None when the reference is there.

    Raises NothingToDo where fewer than two can be stacked.
    """
    if work.is_there:
        return None
    taken: list[StoredFrame] = []
    with metered() as cost:
        made = build_reference(_read(work.frames, taken), expected=len(work.frames))
    members = tuple(
        stored for stored, member in zip(taken, made.members, strict=True) if member.excluded is None
    )
    return Stacked(made, members, cost)


def save(work: StackWork, made: Stacked | None) -> Result:
    """Store the frame and write the reference's rows, once; the result as it stands."""
    database = get_database()
    if made is not None:
        key = f"observations/{work.reference_id}/preprocessed/stack.fits"
        artifact = get_store().put(key, frame_to_fits(made.reference.frame))
        try:
            with database.session() as session:
                _write(session, work, made, (artifact.key, artifact.sha256))
        except IntegrityError:
            with database.reading() as session:
                if session.get(Observation, work.reference_id) is None:
                    raise
    with database.reading() as session:
        row = session.get_one(Observation, work.reference_id)
        stack = dict(row.stack or {})
    return {
        "ending": "done",
        "reference_id": str(work.reference_id),
        "external_reference_id": work.external_id,
        "is_repeat": made is None,
        **stack,
    }


def send(work: StackWork, result: Result) -> Result:
    """Set the observations going that wait for such a reference; those in the stack are not among them."""
    with get_database().reading() as session:
        waiting = waiting_for(session, session.get_one(Observation, work.reference_id))
    for observation_id in waiting:
        broker.send("difference_observation", Stage.DIFFERENCING, str(observation_id))
    return {**result, "waiting_observations_triggered": len(waiting)}


def _angle(value: object, name: str, least: float, greatest: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and least <= value <= greatest:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    msg = f"{name} must be a number of degrees from {least:g} to {greatest:g}, got {value!r:.60}"
    raise SettingRejected(msg)


def _serving(session: Session, survey_id: UUID, request: ReferenceRequest) -> list[Observation]:
    """Observations on which the position lies, best first; references and what failed do not serve."""
    near = preprocessed_near(session, request.ra_deg, request.dec_deg)
    rows = {
        row.id: row
        for row in near
        if row.survey_id == survey_id
        and row.filter_band == request.filter_band
        and not row.is_reference
        and row.status not in (ObservationState.FAILED, ObservationState.ARCHIVED)
    }
    order = ranked(Pointing(request.ra_deg, request.dec_deg), [reference_facts(row) for row in rows.values()])
    return [rows[facts.observation_id] for facts, _ in order[: request.most]]


def _read(frames: Sequence[StoredFrame], taken: list[StoredFrame]) -> Iterator[Frame]:
    """Each frame when it is asked for; `taken` is told the order."""
    store = get_store()
    for stored in frames:
        frame = frame_from_fits(store.get(stored.key, stored.sha256), stored.external_id)
        taken.append(stored)
        yield frame


def _write(session: Session, work: StackWork, made: Stacked, stored: tuple[str, str]) -> None:
    """The reference lies on the grid of the first frame, and so does its row."""
    base = session.get_one(Observation, work.frames[0].observation_id)
    grade, frame = made.reference.grade, made.reference.frame
    scale = frame.facts.pixel_scale_arcsec
    stack = {
        "members": [str(member.observation_id) for member in made.members],
        "frames": [asdict(member) for member in made.reference.members],
        "grade": asdict(grade),
    }
    session.add(
        Observation(
            id=work.reference_id,
            survey_id=base.survey_id,
            external_id=work.external_id,
            ra_deg=base.ra_deg,
            dec_deg=base.dec_deg,
            sky_cell=base.sky_cell,
            observation_time=base.observation_time,
            filter_band=base.filter_band,
            exposure_time_s=frame.facts.exposure_s,
            is_reference=True,
            status=ObservationState.PREPROCESSED,
            companions={},
            width_px=base.width_px,
            height_px=base.height_px,
            pixel_scale_arcsec=base.pixel_scale_arcsec,
            footprint=base.footprint,
            radius_deg=base.radius_deg,
            quality={
                "limiting_magnitude": grade.depth_mag,
                "fwhm_px": grade.fwhm_px,
                "fwhm_arcsec": None if scale is None else grade.fwhm_px * scale,
                "usable_fraction": grade.coverage,
            },
            stack=plain_json(stack),
        )
    )
    session.flush()
    session.add(
        PreprocessRun(
            id=derived_uuid("preprocess_run", str(work.reference_id), work.inputs_sha256),
            version=STAGE_VERSION[Stage.DIFFERENCING],
            inputs_sha256=work.inputs_sha256,
            observation_id=work.reference_id,
            status=RunStatus.COMPLETED,
            frame_key=stored[0],
            frame_sha256=stored[1],
            attempts=1,
            numbers={**asdict(grade), "seconds": made.cost.seconds, "peak_rss_mb": made.cost.peak_rss_mb},
            completed_at=datetime.now(UTC),
        )
    )
