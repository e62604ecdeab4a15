"""Mosaics in the stages: what is cut, what is shared, what is refused, and how the whole stands."""

import gzip
import io
from contextlib import suppress
from uuid import UUID

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import select

from astrid_workers.detection.detection_workers import legacy_infer_detections
from astrid_workers.differencing.differencing_workers import (
    apply_differencing_algorithm,
    create_difference_image,
    difference_observation,
)
from astrid_workers.errors import (
    FrameRejected,
    ObservationRejected,
    SubtractionRefused,
    UnknownObservation,
)
from astrid_workers.ingestion.frame_summary import summary_of
from astrid_workers.ingestion.observation_workers import ingest_observation, legacy_ingest_observation
from astrid_workers.preprocessing.preprocessing_workers import (
    apply_calibration,
    assess_quality,
    preprocess_observation,
)
from astrid_workers.sky.sky_to_fits import sky_to_fits
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.fits import read_frame
from astrid_workers.storage.fits_parts import cut_out, parts_of
from astrid_workers.storage.models import DifferenceRun, Observation, PreprocessRun
from astrid_workers.storage.observation_story import story_of
from support.mosaics import chip, mosaic

SKIES = {"N1": chip(71, 150.0), "S2": chip(72, 150.2)}
PAIRS = {name: sky_to_fits(sky) for name, sky in SKIES.items()}
SCIENCE = mosaic({name: pair[0] for name, pair in PAIRS.items()})
REFERENCE = mosaic({name: PAIRS[name][1] for name in ("S2", "N1")})
SHAPE = (128, 128)


def flats(*names, value=1.0):
    """A mosaic of constant frames."""
    units = [fits.ImageHDU(np.full(SHAPE, value, np.float32), name=name) for name in names]
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(buffer)
    return buffer.getvalue()


@pytest.fixture
def ingest(database, sent, monkeypatch, tmp_path):
    """Send an observation through ingestion, as a client would."""
    monkeypatch.setenv("ASTRID_INPUT_ROOTS", str(tmp_path))

    def one(name, data, **changes):
        path = tmp_path / f"{name[:40]}.fits"
        path.write_bytes(data)
        payload = {
            "survey_id": "survey_456",
            "observation_id": name,
            "ra": 150.1,
            "dec": 2.0,
            "observation_time": "2024-01-01T12:00:00Z",
            "fits_url": path.as_uri(),
        }
        for key, value in changes.items():
            if isinstance(value, bytes):
                companion = tmp_path / f"{key}-{name}.fits"
                companion.write_bytes(value)
                payload[key] = companion.as_uri()
            else:
                payload[key] = value
        return ingest_observation(payload)

    return one


def row(database, external_id):
    with database.reading() as session:
        return session.scalars(select(Observation).where(Observation.external_id == external_id)).one()


def deliver(sent):
    """Run what was sent to preprocessing and differencing until nothing is left."""
    actors = {
        "preprocess_observation": preprocess_observation,
        "difference_observation": difference_observation,
        "create_difference_image": create_difference_image,
    }
    while any(actor in actors for actor, _, _ in sent.messages):
        messages, sent.messages[:] = list(sent.messages), []
        for actor, _, arguments in messages:
            if actor in actors:
                with suppress(FrameRejected, SubtractionRefused):
                    actors[actor].fn(*arguments)


def runs(database, table, external_id):
    with database.reading() as session:
        return session.scalars(
            select(table).where(table.observation_id == row(database, external_id).id)
        ).all()


@pytest.mark.parametrize("packed", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
def test_a_part_cut_out_is_the_part(packed):
    """Pixels and facts of a part's own file are those of the extension in the mosaic."""
    with fits.open(io.BytesIO(SCIENCE)) as units:
        units[0].header["INSTRUME"] = "two chips"
        packed_tiles = fits.CompImageHDU(units["S2"].data, units["S2"].header, name="S2")
        buffer = io.BytesIO()
        fits.HDUList([units[0], units["N1"], packed_tiles]).writeto(buffer)
    data = packed(buffer.getvalue())
    parts = parts_of(data)
    for part, piece in zip(parts, cut_out(data, [p.index for p in parts], name="m.fits"), strict=True):
        whole, alone = read_frame(data, extension=part.index), read_frame(piece)
        np.testing.assert_array_equal(alone.science, whole.science)
        assert alone.facts == whole.facts
        assert alone.facts.instrument == "two chips"


def test_a_mosaic_becomes_one_observation_with_parts(database, sent, ingest):
    """A row and a file for each part, a message for each, and the same again when it is sent again."""
    first, second = ingest("night", SCIENCE), ingest("night", SCIENCE)
    whole, parts = row(database, "night"), [row(database, f"night[{name}]") for name in SKIES]
    assert (whole.n_parts, whole.footprint, whole.width_px) == (2, None, None)
    assert [(one.part, one.part_hdu, one.mosaic_id) for one in parts] == [
        ("N1", 1, whole.id),
        ("S2", 2, whole.id),
    ]
    assert [one.ra_deg for one in parts] == pytest.approx([150.0, 150.2], abs=1e-3)
    for one in parts:
        assert f"/parts/{one.part}/" in one.frame_key
        assert read_frame(get_store().get(one.frame_key)).shape == SHAPE
    assert sent.to("preprocess_observation") == [(str(one.id),) for one in parts] * 2
    assert first["parts"] == second["parts"]
    assert (first["is_repeat"], second["is_repeat"]) == (False, True)
    sent.messages.clear()
    legacy_ingest_observation("night")
    assert len(sent.to("preprocess_observation")) == 2


def test_a_single_image_says_nothing_of_parts(database, sent, ingest):
    """Results of frames with one image have the keys that they had."""
    result = ingest("one", PAIRS["N1"][0])
    assert "parts" not in result
    assert "part" not in preprocess_observation(result["observation_id"])


def test_ids_of_a_mosaic_reach_its_parts(database, sent, ingest):
    """Its own id means all of them, `night[N1]` one; what needs one frame says so."""
    ingest("night", SCIENCE)
    sent.messages.clear()
    result = preprocess_observation("night")
    assert [part["part"] for part in result["parts"]] == ["N1", "S2"]
    assert sent.to("preprocess_observation") == [(part["observation_id"],) for part in result["parts"]]
    assert preprocess_observation("night[N1]")["part"] == "N1"
    for call in (
        lambda: assess_quality("night"),
        lambda: apply_calibration("night", {}),
        lambda: apply_differencing_algorithm("night", "zogy"),
    ):
        with pytest.raises(
            UnknownObservation, match=r"night is a mosaic of 2 parts: name one of them, as night\[…\]"
        ):
            call()
    legacy_infer_detections("night")
    assert len(sent.to("legacy_infer_detections")) == 2


def test_the_whole_stands_where_its_slowest_part_does(database, sent, ingest):
    """A part without a reference waits, the other goes on; a reference that comes for it sets it going."""
    ingest("ref_n1", PAIRS["N1"][1])
    ingest("night", SCIENCE)
    deliver(sent)
    assert row(database, "night[N1]").status == "differenced"
    assert row(database, "night[S2]").status == "preprocessed"
    assert row(database, "night").status == "preprocessed"
    assert runs(database, DifferenceRun, "night[S2]")[0].ending_reason == "no reference covers this field"
    ingest("ref_s2", PAIRS["S2"][1])
    deliver(sent)
    assert row(database, "night").status == "differenced"


def test_a_named_mosaic_serves_each_part_with_its_own(database, sent, ingest):
    """`create_difference_image` of two mosaics, whose parts stand in another order; and of a chip that is not there."""
    ingest("archive", REFERENCE)
    ingest("night", SCIENCE)
    sent.messages[:] = [one for one in sent.messages if one[0] == "preprocess_observation"]
    deliver(sent)
    create_difference_image("night", "archive")
    deliver(sent)
    for name in SKIES:
        (run,) = [r for r in runs(database, DifferenceRun, f"night[{name}]") if r.reference_id is not None]
        assert run.reference_id == row(database, f"archive[{name}]").id
    ingest("far", sky_to_fits(chip(75, 170.0))[0])
    deliver(sent)
    result = create_difference_image("far", "archive")
    assert result["reason"] == "no part of archive covers this field"


def test_parts_without_a_wcs_meet_by_name(database, sent, ingest):
    """All parts have one pointing then: the same chip is taken, and none where there is no such chip."""

    def blind(data):
        with fits.open(io.BytesIO(data)) as units:
            for unit in units[1:]:
                for card in ("CTYPE1", "CTYPE2"):
                    unit.header.remove(card)
            buffer = io.BytesIO()
            units.writeto(buffer)
            return buffer.getvalue()

    ingest("ref_blind", blind(REFERENCE))
    ingest("night", blind(SCIENCE))
    ingest("other", blind(mosaic({"X7": PAIRS["N1"][0], "X8": PAIRS["S2"][0]})))
    deliver(sent)
    for name in SKIES:
        (run,) = [r for r in runs(database, DifferenceRun, f"night[{name}]") if r.reference_id is not None]
        assert run.reference_id == row(database, f"ref_blind[{name}]").id
    assert row(database, "other").status == "preprocessed"


def test_companions_are_cut_by_part(database, sent, ingest):
    """A mosaic of flats gives each part its own, a single bias serves all; a part without a flat fails alone."""
    bias = io.BytesIO()
    fits.PrimaryHDU(np.full(SHAPE, 2, np.float32)).writeto(bias)
    ingest("night", SCIENCE, flat_frame=flats("N1", "X", "Y"), bias_frame=bias.getvalue())
    with pytest.raises(FrameRejected, match="flat_frame has no part S2, it has: N1, X, Y"):
        preprocess_observation("night[S2]")
    result = preprocess_observation("night[N1]")
    assert result["calibration"]["flat_correction"]["applied"]
    assert result["calibration"]["bias_correction"]["applied"]
    assert row(database, "night[S2]").status == "failed"
    assert row(database, "night").status == "preprocessed"
    (run,) = runs(database, PreprocessRun, "night[S2]")
    assert run.is_retryable is False
    ingest("flats", flats("N1", "S2", value=3.0))
    named = apply_calibration("night[N1]", {"flat_frame": "flats"})
    assert named["flat_correction"]["normalization_factor"] == pytest.approx(3.0)


def test_a_part_that_cannot_be_read_fails_alone(database, sent, ingest, monkeypatch):
    """Pixels without a scale, or a header that nobody can use: the sentence stands in its run, the rest goes on."""
    start = SCIENCE.index(b"XTENSION", SCIENCE.index(b"EXTNAME = 'N1"))
    card = SCIENCE.index(b"BSCALE  =", start)
    broken = SCIENCE[:card] + b"BSCALE  = 'wide'".ljust(80) + SCIENCE[card + 80 :]

    def seen(data, *, name, limits):
        if name.endswith("[S2]"):
            raise FrameRejected(f"{name}: nobody can use it")
        return summary_of(data, name=name, limits=limits)

    ingest("pixels", broken)
    monkeypatch.setattr("astrid_workers.ingestion.mosaic_files.summary_of", seen)
    ingest("header", broken)
    deliver(sent)
    for name in ("pixels", "header"):
        assert row(database, f"{name}[N1]").status == row(database, name).status == "preprocessed"
        assert row(database, f"{name}[S2]").status == "failed"
        (run,) = runs(database, PreprocessRun, f"{name}[S2]")
        assert "BSCALE" in run.ending_reason
    assert row(database, "header[S2]").width_px is None


def test_all_parts_failed_is_a_failure_of_the_whole(database, sent, ingest):
    """Nothing is left of it then."""
    ingest("night", SCIENCE, flat_frame=flats("X", "Y", "Z"))
    deliver(sent)
    assert row(database, "night").status == "failed"


def test_a_mosaic_can_be_declared_a_reference_later(database, sent, ingest):
    """With all its parts."""
    ingest("night", SCIENCE)
    ingest("night", SCIENCE, is_reference=True)
    assert all(row(database, f"night[{name}]").is_reference for name in SKIES)


def test_names_that_do_not_fit_or_are_taken_are_refused(database, sent, ingest):
    """Parts have ids that people can write down."""
    with pytest.raises(ObservationRejected, match="is too long, 202 characters, at most 200 are kept"):
        ingest("n" * 198, SCIENCE)
    ingest("night[N1]", PAIRS["N1"][0])
    with pytest.raises(ObservationRejected, match="part N1 of the mosaic would be 'night"):
        ingest("night", SCIENCE)


def test_the_story_tells_parts_and_candidates_of_all(database, sent, ingest):
    """How each part stands, why one failed, and every candidate with its part."""
    ingest("ref_night", REFERENCE)
    ingest("night", mosaic({name: pair[0] for name, pair in PAIRS.items()}, dead="S2"))
    deliver(sent)
    with database.reading() as session:
        story = story_of(session, session.get_one(Observation, row(database, "night").id), most_candidates=50)
    assert [(part["part"], part["status"]) for part in story["parts"]] == [
        ("N1", "differenced"),
        ("S2", "failed"),
    ]
    assert story["parts"][1]["reason"]
    assert story["parts"][0]["n_candidates"] == story["candidates"]["count"] >= 3
    assert {one["part"] for one in story["candidates"]["best"]} == {"N1"}
    assert UUID(story["parts"][0]["id"])
