"""Differencing as a stage: which reference, which rows, which ending, who is told."""

import functools
import uuid
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, select

from astrid_workers.differencing import stage
from astrid_workers.differencing.differencing_workers import (
    apply_differencing_algorithm,
    batch_difference_observations,
    create_difference_image,
    difference_observation,
    extract_sources,
    legacy_difference_observation,
    validate_difference_image,
)
from astrid_workers.differencing.pair import run_pair
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.errors import (
    ObservationNotThereYet,
    PermanentFailure,
    SettingRejected,
    SubtractionRefused,
    UnknownObservation,
    UnknownRecord,
)
from astrid_workers.sky.make_sky import make_sky
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.fits_images import image_from_fits
from astrid_workers.storage.models import Candidate, Difference, DifferenceRun, Observation, Survey
from astrid_workers.storage.observation_story import story_of
from astrid_workers.storage.states import ObservationState, RunStatus
from support.seeded_archive import plain_frame, seed_observation, seed_preprocessed

SKY = make_sky(seed=3, shape=(128, 128), n_stars=40, n_transients=4, transient_snr=(15, 40))


@functools.cache
def differenced(options):
    """What becomes of `SKY`, worked out once for all tests of this module."""
    return run_pair(SKY.science, SKY.reference, options)


@pytest.fixture
def pair(database, monkeypatch):
    """A science frame and a reference of it, both preprocessed."""
    monkeypatch.setattr(stage, "run_pair", lambda _science, _reference, options: differenced(options))
    science = seed_preprocessed(database, "obs_1", SKY.science)
    seed_preprocessed(database, "ref_1", SKY.reference, is_reference=True)
    return science


def count(database, table):
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


def one(database, table):
    with database.reading() as session:
        return session.scalars(select(table)).one()


def test_a_pair_becomes_a_difference_with_its_candidates(database, sent, pair):
    """The transients are among the candidates' rows, the images in the store, and detection is told."""
    result = difference_observation("obs_1")

    with database.reading() as session:
        found = session.scalars(select(Candidate).order_by(Candidate.index)).all()
        difference = session.scalars(select(Difference)).one()
    for truth in SKY.truth:
        assert min(np.hypot(c.x - truth["x"], c.y - truth["y"]) for c in found) < 1.5
    image = image_from_fits(get_store().get(difference.difference_key, difference.difference_sha256), "d")
    assert image.shape == SKY.science.shape
    assert sent.to("detect_anomalies") == [(result["difference_id"], "matched-filter")]
    assert (result["ending"], result["processing_triggered"]) == ("done", True)


def test_candidates_have_magnitudes_where_the_frame_has_a_zero_point(database, sent, monkeypatch):
    """Rows and result hold the magnitude of a positive flux, its error and the limit; a fading one the limit alone."""
    facts = replace(SKY.science.facts, zero_point_mag=27.5)
    made = differenced(DifferenceOptions())
    first, *others = made.candidates.items
    fading = replace(first, flux=-abs(first.flux), is_positive=False)
    made = replace(
        made,
        science=replace(made.science, facts=facts),
        candidates=replace(made.candidates, items=(fading, *others)),
    )
    monkeypatch.setattr(stage, "run_pair", lambda *_: made)
    seed_preprocessed(database, "obs_1", SKY.science)
    seed_preprocessed(database, "ref_1", SKY.reference, is_reference=True)

    faded, brighter, *_ = difference_observation("obs_1")["extraction"]["candidates"]

    assert (faded["mag"], faded["mag_err"]) == (None, None)
    assert faded["limit_mag"] == pytest.approx(27.5 - 2.5 * np.log10(5 * faded["flux_err"]))
    assert brighter["mag"] == pytest.approx(27.5 - 2.5 * np.log10(brighter["flux"]))
    assert brighter["mag_err"] == pytest.approx(1.0857 * brighter["flux_err"] / brighter["flux"], rel=1e-3)
    with database.reading() as session:
        row = session.scalars(select(Candidate).where(Candidate.index == 1)).one()
        story = story_of(session, session.get_one(Observation, row.observation_id), most_candidates=2)
    told = {name: brighter[name] for name in ("mag", "mag_err", "limit_mag")}
    assert row.magnitudes == told
    assert story["candidates"]["best"][1].items() >= told.items()


def test_the_observation_is_differenced_and_the_run_keeps_its_numbers(database, sent, pair):
    """Row and state agree with the result; what was measured and assumed is kept."""
    result = difference_observation("obs_1")

    run, difference = one(database, DifferenceRun), one(database, Difference)
    with database.reading() as session:
        assert session.get_one(Observation, pair).status == ObservationState.DIFFERENCED
    assert (run.status, str(run.id)) == (RunStatus.COMPLETED, result["difference_run_id"])
    assert run.numbers["seconds"] > 0
    assert difference.flux_scale == pytest.approx(1.0, abs=0.05)
    assert list(difference.numbers["assumed"]) == result["assumed"]


def test_a_repeat_computes_nothing_and_sends_again(database, sent, pair, monkeypatch):
    """The run is found by its id: pixels are not touched a second time."""
    first = difference_observation("obs_1")
    monkeypatch.setattr(stage, "run_pair", None)
    second = difference_observation(str(pair))

    assert first["extraction"] == second["extraction"]
    assert count(database, DifferenceRun) == count(database, Difference) == 1
    assert len(sent.to("detect_anomalies")) == 2


def test_a_repeat_keeps_its_reference_when_a_better_one_has_come(database, sent, pair):
    """A message delivered twice is one difference, whatever arrived in between."""
    difference_observation("obs_1")
    seed_preprocessed(
        database, "ref_0", SKY.reference, is_reference=True, quality={"limiting_magnitude": 30.0}
    )

    difference_observation("obs_1")

    assert count(database, Difference) == 1


def test_two_at_once_end_with_one_set_of_rows(database, sent, pair):
    """Both have computed before either saves; the second answers with the first's result."""
    works = [stage.load("obs_1") for _ in range(2)]
    made = stage.run(works[0])

    first, second = (stage.save(work, made) for work in works)

    assert first == second
    assert count(database, DifferenceRun) == count(database, Difference) == 1


def test_without_a_reference_there_is_nothing_to_do(database, sent):
    """No error, no next message; the row says why, and the observation stays preprocessed."""
    science = seed_preprocessed(database, "obs_1", SKY.science)

    result = difference_observation("obs_1")

    run = one(database, DifferenceRun)
    assert (result["ending"], result["reason"]) == ("nothing_to_do", "no reference covers this field")
    assert (run.status, run.ending_reason) == (RunStatus.NOTHING_TO_DO, "no reference covers this field")
    with database.reading() as session:
        assert session.get_one(Observation, science).status == ObservationState.PREPROCESSED
    assert sent.messages == []


def test_a_reference_that_came_meanwhile_is_noticed(database, sent, monkeypatch):
    """Looked for, not found, written down, and there it is: the observation is sent once more, and not lost."""
    seed_preprocessed(database, "obs_1", SKY.science)
    work = stage.load("obs_1")
    result = stage.save(work, stage.run(work))
    seed_preprocessed(database, "ref_1", SKY.reference, is_reference=True)

    stage.send(work, result)

    assert [arguments[0] for arguments in sent.to("difference_observation")] == [
        str(work.ticket.observation_id)
    ]


def test_a_reference_in_another_filter_does_not_count(database, sent):
    """Only like is subtracted from like."""
    seed_preprocessed(database, "obs_1", SKY.science)
    seed_preprocessed(database, "ref_1", SKY.reference, is_reference=True, filter_band="g")

    assert difference_observation("obs_1")["reason"] == "no reference covers this field"


def test_a_reference_is_not_differenced_against_itself(database, sent, pair):
    """It ends as nothing to do, and says so."""
    result = difference_observation("ref_1")

    assert result["ending"] == "nothing_to_do"
    assert result["reason"].startswith("is a reference")


def test_an_observation_without_an_image_is_left_as_it_is(database, sent):
    """Nothing to do: no image; the state is untouched."""
    observation = seed_observation(database, "obs_7")

    assert difference_observation("obs_7")["reason"] == "no image"
    with database.reading() as session:
        assert session.get_one(Observation, observation).status == ObservationState.INGESTED


def test_an_observation_that_is_not_preprocessed_yet_may_be_later(database, sent):
    """A failure that a retry helps; no row is left behind."""
    seed_observation(database, "obs_8", frame_key="raw.fits", frame_sha256="0" * 64)

    with pytest.raises(ObservationNotThereYet, match="obs_8 has not been preprocessed yet"):
        difference_observation("obs_8")
    with pytest.raises(ObservationNotThereYet, match="obs_9"):
        difference_observation("obs_9")
    assert count(database, DifferenceRun) == 0


def test_frames_that_cannot_be_matched_fail_for_good_with_the_numbers(database, sent):
    """The row says what failed and that a retry is useless, the observation that it failed; a repeat tries again."""
    science = seed_preprocessed(database, "obs_1", plain_frame(1))
    seed_preprocessed(database, "ref_1", plain_frame(2), is_reference=True)

    for attempts in (1, 2):
        with pytest.raises(SubtractionRefused):
            difference_observation("obs_1")
        run = one(database, DifferenceRun)
        assert (run.status, run.is_retryable, run.attempts) == (RunStatus.FAILED, False, attempts)
    assert "star" in run.ending_reason
    assert run.numbers
    with database.reading() as session:
        assert session.get_one(Observation, science).status == ObservationState.FAILED


def test_an_unexpected_failure_is_recorded_with_its_traceback(database, sent, pair, monkeypatch):
    """A bug is not swallowed: it goes on up, and the row has where it happened and that a retry may help."""

    def broken(*_):
        raise ZeroDivisionError("seventeen")

    monkeypatch.setattr(stage, "run_pair", broken)
    with pytest.raises(ZeroDivisionError):
        difference_observation("obs_1")

    run = one(database, DifferenceRun)
    assert (run.status, run.is_retryable) == (RunStatus.FAILED, True)
    assert "in broken" in run.error


def test_a_failed_run_is_healed_by_the_next_delivery(database, sent, pair, monkeypatch):
    """The same run, completed at the second attempt, with nothing left of the failure."""
    with monkeypatch.context() as patch:
        patch.setattr(stage, "run_pair", None)
        with pytest.raises(TypeError):
            difference_observation("obs_1")

    difference_observation("obs_1")

    run = one(database, DifferenceRun)
    assert (run.status, run.attempts, run.error, run.is_retryable) == (RunStatus.COMPLETED, 2, None, None)


def test_a_named_reference_is_taken(database, sent, pair):
    """`create_difference_image` asks for one; both forms of id will do."""
    other = seed_preprocessed(database, "ref_2", SKY.reference, is_reference=True)

    assert create_difference_image("obs_1", "ref_2")["reference_id"] == str(other)
    assert create_difference_image(str(pair), str(other))["reference_id"] == str(other)
    assert count(database, Difference) == 1


def test_a_named_reference_need_not_be_declared_one(database, sent, pair):
    """Any preprocessed observation can be subtracted when somebody asks for it."""
    seed_preprocessed(database, "obs_2", SKY.reference)

    assert create_difference_image("obs_1", "obs_2")["ending"] == "done"


@pytest.mark.parametrize("algorithm", ["zogy", "classic"])
def test_an_algorithm_can_be_asked_for(database, sent, pair, algorithm):
    """It is the one that runs, its block of parameters is there, and nothing is handed on."""
    section = apply_differencing_algorithm("obs_1", algorithm)

    assert section["algorithm"] == algorithm
    assert f"{algorithm}_parameters" in section
    assert sent.messages == []


@pytest.mark.parametrize("algorithm", ["hotpants", "ZOGY", "none", "", 3])
def test_an_unknown_algorithm_is_refused_for_good_and_lists_the_valid_ones(database, sent, pair, algorithm):
    """Earlier, any name was accepted and did nothing."""
    with pytest.raises(SettingRejected, match="valid are: auto, zogy, classic"):
        apply_differencing_algorithm("obs_1", algorithm)
    assert issubclass(SettingRejected, PermanentFailure)


def test_the_configured_algorithm_and_threshold_act(database, sent, pair, monkeypatch):
    """Settings mean something."""
    monkeypatch.setenv("ASTRID_DIFFERENCING_ALGORITHM", "classic")
    monkeypatch.setenv("ASTRID_DIFFERENCING_THRESHOLD_SIGMA", "21")

    result = difference_observation("obs_1")

    assert result["algorithm"]["algorithm"] == "classic"
    assert all(abs(c["score"]) >= 21 for c in result["extraction"]["candidates"])
    assert result["extraction"]["extraction_parameters"]["detection_threshold"] == 21


def test_what_was_measured_can_be_read_again(database, sent, pair):
    """Validation and extraction by the difference's id are those of the run."""
    result = difference_observation("obs_1")

    assert validate_difference_image(result["difference_id"]) == result["validation"]
    read = extract_sources(result["difference_id"])
    assert read["candidates"] == result["extraction"]["candidates"]


@pytest.mark.parametrize("actor", [validate_difference_image, extract_sources])
@pytest.mark.parametrize("difference_id", [str(uuid.uuid4()), "diff_obs_1", None])
def test_no_such_difference_is_refused_for_good(database, actor, difference_id):
    """One sentence."""
    with pytest.raises(UnknownRecord, match="difference"):
        actor(difference_id)


def test_a_batch_queues_all_but_what_is_ambiguous(database, sent, pair):
    """An id that two surveys have is refused and listed; one that is not there yet may come."""
    with database.session() as session:
        survey = Survey(id=uuid.uuid4(), name="other")
        session.add(survey)
        session.flush()
        survey_id = survey.id
    seed_observation(database, "obs_1", id=uuid.uuid4(), survey_id=survey_id)

    result = batch_difference_observations(["obs_1", "ref_1", "later"])

    assert [item["observation_id"] for item in result["results"]] == ["ref_1", "later"]
    assert "other" in result["errors"][0]["error"]
    assert "seeded" in result["errors"][0]["error"]
    with pytest.raises(UnknownObservation):
        difference_observation("obs_1")


def test_the_legacy_actor_forwards(database, sent, pair):
    """To the actor that carries the chain."""
    legacy_difference_observation("obs_1")

    assert sent.to("difference_observation") == [("obs_1",)]
