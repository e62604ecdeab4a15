"""Preprocessing as a stage: frames in and out, what a reference sets going, and the single steps."""

import dataclasses
import io

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import func, select

from astrid_workers.differencing.differencing_workers import difference_observation
from astrid_workers.errors import FrameRejected, ObservationNotThereYet, SourceRefused, UnknownRecord
from astrid_workers.ingestion.observation_workers import ingest_observation
from astrid_workers.preprocessing import stage
from astrid_workers.preprocessing.preprocessing_workers import (
    align_observation,
    apply_calibration,
    assess_quality,
    batch_preprocess_observations,
    legacy_preprocess_observation,
    preprocess_observation,
)
from astrid_workers.sky.make_sky import make_sky
from astrid_workers.sky.sky_to_fits import sky_to_fits
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.fits import frame_from_fits
from astrid_workers.storage.models import Observation, PreprocessRun
from astrid_workers.storage.states import ObservationState, RunStatus

SKY = make_sky(
    seed=4, shape=(128, 128), n_stars=40, n_transients=3, transient_snr=(20, 40), offset_px=(2.0, -1.0)
)
SCIENCE, REFERENCE = sky_to_fits(SKY)


def image(value, shape=(128, 128), **cards):
    """A constant frame as FITS."""
    header = fits.Header()
    header.update(cards)
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.full(shape, value, np.float32), header).writeto(buffer)
    return buffer.getvalue()


@pytest.fixture
def ingest(database, sent, monkeypatch, tmp_path):
    """Send an observation through ingestion, as a client would, and forget the messages."""
    monkeypatch.setenv("ASTRID_INPUT_ROOTS", str(tmp_path))

    def one(name, data, **changes):
        path = tmp_path / f"{name}.fits"
        payload = {
            "survey_id": "survey_456",
            "observation_id": name,
            "ra": 150.1,
            "dec": 2.2,
            "observation_time": "2024-01-01T12:00:00Z",
        }
        if data is not None:
            path.write_bytes(data)
            payload["fits_url"] = path.as_uri()
        result = ingest_observation(payload | changes)
        sent.messages.clear()
        return result["observation_id"]

    return one


def count(database, table):
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


def observation(database, external_id="obs_1"):
    with database.reading() as session:
        return session.scalars(select(Observation).where(Observation.external_id == external_id)).one()


def test_a_frame_is_calibrated_stored_and_handed_on(database, sent, ingest):
    """The artifact in the row is the frame; the observation is preprocessed; differencing is told."""
    observation_id = ingest("obs_1", SCIENCE)

    result = preprocess_observation("obs_1")

    with database.reading() as session:
        run = session.scalars(select(PreprocessRun)).one()
    frame = frame_from_fits(get_store().get(run.frame_key, run.frame_sha256))
    assert np.median(frame.science) == pytest.approx(np.median(SKY.science.science), rel=0.02)
    assert (run.status, result["status"]) == (RunStatus.COMPLETED, "preprocessed")
    assert observation(database).status == ObservationState.PREPROCESSED
    assert sent.to("difference_observation") == [(observation_id,)]


def test_what_was_measured_stands_where_references_are_ranked(database, sent, ingest):
    """`quality` of the observation has depth and width by the names that the ranking reads."""
    ingest("obs_1", SCIENCE)
    preprocess_observation("obs_1")

    quality = observation(database).quality
    assert quality["fwhm_arcsec"] == pytest.approx(3.2 * 0.5, rel=0.1)
    assert "limiting_magnitude" in quality


def test_both_forms_of_id_will_do(database, sent, ingest):
    """The external id and ours name one observation and one run."""
    observation_id = ingest("obs_1", SCIENCE)

    first, second = preprocess_observation("obs_1"), preprocess_observation(observation_id)

    assert first["preprocess_run_id"] == second["preprocess_run_id"]
    assert count(database, PreprocessRun) == 1


def test_a_repeat_computes_nothing_and_sends_again(database, sent, ingest, monkeypatch):
    """Pixels are not touched a second time; the next message may have been lost."""
    ingest("obs_1", SCIENCE)
    first = preprocess_observation("obs_1")
    monkeypatch.setattr(stage, "calibrate_files", None)
    second = preprocess_observation("obs_1")

    assert first["quality"] == second["quality"]
    assert len(sent.to("difference_observation")) == 2


def test_two_at_once_end_with_one_row(database, sent, ingest):
    """Both have computed before either saves."""
    ingest("obs_1", SCIENCE)
    works = [stage.load("obs_1") for _ in range(2)]
    made = [stage.run(work) for work in works]

    first, second = (stage.save(*pair) for pair in zip(works, made, strict=True))

    assert first == second
    assert count(database, PreprocessRun) == 1


def test_without_an_image_there_is_nothing_to_do(database, sent, ingest):
    """No error, no next message, and the observation stays as it was."""
    ingest("obs_1", None)

    result = preprocess_observation("obs_1")

    assert (result["ending"], result["reason"], result["status"]) == ("nothing_to_do", "no image", "ingested")
    assert result["processing_triggered"] is False
    assert observation(database).status == ObservationState.INGESTED
    assert sent.messages == []


def test_an_image_that_comes_later_is_preprocessed(database, sent, ingest):
    """The run without an image is another run: it does not stand in the way."""
    ingest("obs_1", None)
    preprocess_observation("obs_1")
    ingest("obs_1", SCIENCE)

    assert preprocess_observation("obs_1")["ending"] == "done"


def test_an_observation_that_is_not_there_yet_may_come(database, sent):
    """A failure that a retry helps: the message may have overtaken the one that makes it."""
    with pytest.raises(ObservationNotThereYet, match="obs_404"):
        preprocess_observation("obs_404")


@pytest.mark.parametrize("nonsense", [None, 17, "", "x" * 201, ["obs_1"]])
def test_an_argument_that_is_no_name_is_refused_for_good(database, sent, nonsense):
    """One sentence with what it was."""
    with pytest.raises(UnknownRecord, match="observation_id must be text of 1 to 200 characters"):
        preprocess_observation(nonsense)


def test_a_reference_ends_here_and_says_so(database, sent, ingest):
    """It is not differenced against itself."""
    ingest("ref_1", REFERENCE, is_reference=True)

    result = preprocess_observation("ref_1")

    assert (result["ending"], result["processing_triggered"]) == ("done", False)
    assert result["reason"].startswith("is a reference")
    assert sent.messages == []


def test_a_reference_sets_those_going_that_waited_for_one(database, sent, ingest):
    """An observation that ended without a reference is differenced when one comes; others are left alone."""
    waiting = ingest("obs_1", SCIENCE)
    for name, changes in (("obs_g", {"filter_band": "g"}), ("obs_busy", {})):
        ingest(name, SCIENCE, **changes)
    for name in ("obs_1", "obs_g", "obs_busy"):
        preprocess_observation(name)
    for name in ("obs_1", "obs_g"):
        assert difference_observation(name)["reason"] == "no reference covers this field"
    ingest("ref_1", REFERENCE, is_reference=True)

    result = preprocess_observation("ref_1")

    assert sent.to("difference_observation") == [(waiting,)]
    assert result["waiting_observations_triggered"] == 1
    assert difference_observation(waiting)["ending"] == "done"
    sent.messages.clear()
    preprocess_observation("ref_1")
    assert sent.to("difference_observation") == []


def test_the_offset_from_the_reference_is_measured(database, sent, ingest):
    """With a reference at hand the alignment section says how the frame lies on it; the header's offset is right."""
    ingest("ref_1", REFERENCE, is_reference=True)
    preprocess_observation("ref_1")
    ingest("obs_1", SCIENCE)

    alignment = preprocess_observation("obs_1")["alignment"]

    assert alignment["alignment_applied"] is True
    assert alignment["registration_quality"]["n_matched_stars"] > 5
    assert alignment["registration_quality"]["rms_error"] < 0.2
    assert abs(alignment["wcs_correction"]["dx_px"]) < 0.2
    assert alignment == align_observation("obs_1", "ref_1") | {"processed_at": alignment["processed_at"]}


def test_without_a_reference_nothing_is_aligned(database, sent, ingest):
    """Null and false, with the reason."""
    ingest("obs_1", SCIENCE)

    alignment = preprocess_observation("obs_1")["alignment"]

    assert (alignment["alignment_applied"], alignment["reference_id"]) == (False, None)
    assert alignment["reason"] == "no reference covers this field"
    assert set(alignment["registration_quality"].values()) == {None}


def test_frames_that_the_observation_declares_are_used(database, sent, ingest, tmp_path):
    """Bias and flat come from the store, where ingestion put them."""
    for name, data in (("bias", image(100.0)), ("flat", image(20_000.0))):
        (tmp_path / f"{name}.fits").write_bytes(data)
    declared = {f"{name}_frame": (tmp_path / f"{name}.fits").as_uri() for name in ("bias", "flat")}
    ingest("obs_1", SCIENCE, **declared)

    calibration = preprocess_observation("obs_1")["calibration"]

    assert calibration["calibration_applied"] is True
    assert calibration["bias_correction"]["correction_factor"] == pytest.approx(100.0)
    assert calibration["flat_correction"]["normalization_factor"] == pytest.approx(20_000.0)
    assert calibration["dark_correction"]["applied"] is False


def test_without_calibration_frames_none_is_claimed(database, sent, ingest):
    """The earlier system said applied with no frames at all."""
    ingest("obs_1", SCIENCE)

    calibration = preprocess_observation("obs_1")["calibration"]

    assert calibration["calibration_applied"] is False
    for step in ("bias", "dark", "flat"):
        assert calibration[f"{step}_correction"]["applied"] is False


def test_calibration_frames_can_be_named_in_a_message(database, sent, ingest, tmp_path):
    """By address, under the rules of ingestion, or by an observation; the frame is kept, the observation not changed."""
    (tmp_path / "bias.fits").write_bytes(image(100.0))
    ingest("flat_1", image(20_000.0))
    ingest("obs_1", SCIENCE)

    result = apply_calibration(
        "obs_1", {"bias_frame": (tmp_path / "bias.fits").as_uri(), "flat_frame": "flat_1"}
    )

    assert result["bias_correction"]["applied"] is True
    assert result["flat_correction"]["applied"] is True
    frame = frame_from_fits(get_store().get(result["frame"]["key"], result["frame"]["sha256"]))
    assert frame.shape == (128, 128)
    assert observation(database).status == ObservationState.INGESTED


def test_a_calibration_frame_outside_the_allowed_folders_is_refused(database, sent, ingest):
    """The rules of ingestion hold for every address that a message names."""
    ingest("obs_1", SCIENCE)

    with pytest.raises(SourceRefused):
        apply_calibration("obs_1", {"bias_frame": "file:///etc/passwd"})


def test_a_frame_that_does_not_fit_fails_for_good(database, sent, ingest, tmp_path):
    """The row has the sentence, and the observation is failed."""
    (tmp_path / "bias.fits").write_bytes(image(100.0, shape=(64, 64)))
    ingest("obs_1", SCIENCE, bias_frame=(tmp_path / "bias.fits").as_uri())

    with pytest.raises(FrameRejected):
        preprocess_observation("obs_1")

    with database.reading() as session:
        run = session.scalars(select(PreprocessRun)).one()
    assert (run.status, run.is_retryable) == (RunStatus.FAILED, False)
    assert "64 x 64" in run.ending_reason
    assert observation(database).status == ObservationState.FAILED


def test_quality_can_be_asked_for(database, sent, ingest):
    """The numbers of the stored frame are those of the run."""
    ingest("obs_1", SCIENCE)
    measured = preprocess_observation("obs_1")["quality"]

    assert assess_quality("obs_1") | {"processed_at": 0} == measured | {"processed_at": 0}


def test_single_steps_without_an_image_have_nothing_to_do(database, sent, ingest):
    """The same ending as the stage."""
    ingest("obs_1", None)

    for answer in (assess_quality("obs_1"), align_observation("obs_1"), apply_calibration("obs_1", {})):
        assert (answer["ending"], answer["reason"]) == ("nothing_to_do", "no image")


def test_single_steps_wait_for_the_frame(database, sent, ingest):
    """Not preprocessed yet: a retry helps."""
    ingest("obs_1", SCIENCE)

    with pytest.raises(ObservationNotThereYet):
        assess_quality("obs_1")


def test_a_batch_queues_each(database, sent, ingest):
    """One message for each; nonsense is listed, and keeps nobody back."""
    result = batch_preprocess_observations(["obs_1", 3, "obs_2"])

    assert (result["successful"], result["failed"]) == (2, 1)
    assert sent.to("preprocess_observation") == [("obs_1",), ("obs_2",)]


def test_the_legacy_actor_forwards(database, sent):
    """To the actor that carries the chain."""
    legacy_preprocess_observation("obs_1")

    assert sent.to("preprocess_observation") == [("obs_1",)]


def test_files_decide_the_run(database, sent, ingest):
    """Another companion is another run; the same files are the same one, whatever they are called."""
    ingest("obs_1", SCIENCE)
    with database.reading() as session:
        files = stage.raw_files(session, observation(database))
    renamed = dataclasses.replace(files, image=("elsewhere.fits", files.image[1]))
    with_flat = dataclasses.replace(files, companions={"flat_frame": ("flat.fits", "1" * 64)})

    assert renamed.sha256 == files.sha256 != with_flat.sha256
