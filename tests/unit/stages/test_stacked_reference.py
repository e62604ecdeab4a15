"""A reference of the pipeline's own: which observations serve, what is registered, and who uses it."""

import json

import pytest
from sqlalchemy import select

from astrid_workers.__main__ import main
from astrid_workers.differencing.differencing_workers import build_reference, difference_observation
from astrid_workers.errors import NothingToDo, SettingRejected
from astrid_workers.ingestion.observation_workers import ingest_observation
from astrid_workers.preprocessing.preprocessing_workers import preprocess_observation
from astrid_workers.sky.make_exposures import ExposureSettings, make_exposures
from astrid_workers.sky.sky_to_fits import frame_to_user_fits
from astrid_workers.storage.models import DifferenceRun, Observation
from astrid_workers.storage.observation_story import story_of

SETTINGS = (
    ExposureSettings(),
    ExposureSettings((3.5, 1.3), n_cosmic_rays=30),
    ExposureSettings((-2.4, 4.6)),
    ExposureSettings((1.1, -2.2), passing_e=9_000),
)
NIGHTS = [
    frame_to_user_fits(frame)
    for frame in make_exposures(SETTINGS, seed=9, shape=(256, 256), n_stars=80).frames
]
SURVEY = "survey_456"


@pytest.fixture
def night(database, sent, monkeypatch, tmp_path):
    """Ingest, preprocess and difference the observation of a night; its id."""
    monkeypatch.setenv("ASTRID_INPUT_ROOTS", str(tmp_path))

    def one(number, **changes):
        path = tmp_path / f"night_{number}.fits"
        path.write_bytes(NIGHTS[number])
        payload = {
            "survey_id": SURVEY,
            "observation_id": f"night_{number}",
            "ra": 150.1,
            "dec": 2.2,
            "observation_time": f"2024-01-0{number + 1}T12:00:00Z",
            "filter_band": "r",
            "fits_url": path.as_uri(),
        }
        observation_id = ingest_observation(payload | changes)["observation_id"]
        preprocess_observation(observation_id)
        difference_observation(observation_id)
        sent.messages.clear()
        return observation_id

    return one


@pytest.fixture
def field(night, database):
    """Three nights without a reference, and a request for one on their field."""
    ids = [night(number) for number in range(3)]
    with database.reading() as session:
        row = session.scalars(select(Observation).where(Observation.external_id == "night_0")).one()
    return ids, {"survey_id": SURVEY, "ra": row.ra_deg, "dec": row.dec_deg, "filter_band": "r"}


def rows(database, table):
    with database.reading() as session:
        return session.scalars(select(table)).all()


def test_nights_become_a_reference_that_later_ones_use(field, night, database, sent):
    """It is graded, deeper than one night and registered once; the next night is differenced against it."""
    ids, request = field
    result = build_reference(request)
    assert set(result["members"]) == set(ids)
    assert result["grade"]["n_frames"] == 3
    assert result["grade"]["gain_mag"] > 0.3
    again = build_reference(request)
    assert (result["is_repeat"], again["is_repeat"]) == (False, True)
    assert again["grade"] == result["grade"]
    (reference,) = [row for row in rows(database, Observation) if row.is_reference]
    assert (str(reference.id), reference.filter_band) == (result["reference_id"], "r")
    assert reference.exposure_time_s == pytest.approx(3 * rows(database, Observation)[0].exposure_time_s)

    later = night(3)
    (run,) = [row for row in rows(database, DifferenceRun) if row.reference_id is not None]
    assert (str(run.observation_id), run.reference_id) == (later, reference.id)
    assert run.result["extraction"]["source_count"] == 1
    assert run.result["validation"]["statistical_metrics"]
    choice = run.result["reference_choice"]
    assert choice["reason"].endswith("% of the field: no other reference does")
    with database.reading() as session:
        story = story_of(session, session.get_one(Observation, run.observation_id), most_candidates=5)
    assert story["candidates"]["reference"] == reference.external_id
    assert story["candidates"]["reference_why"] == choice["reason"]


def test_a_night_is_never_differenced_against_a_stack_of_itself(field, database, sent):
    """Its own noise would be on both sides: the nights in the stack go on waiting, others are set going."""
    ids, request = field
    result = build_reference(request | {"most": 2})
    assert len(result["members"]) == 2
    assert len(result["frames"]) == 2
    (waiting,) = sent.to("difference_observation")
    assert {*result["members"], *waiting} == set(ids)
    sent.messages.clear()
    for member in result["members"]:
        assert difference_observation(member)["reason"] == "no reference covers this field"
    assert difference_observation(*waiting)["reference_id"] == result["reference_id"]


def test_the_deeper_reference_is_taken_and_the_choice_told(field, night, database, sent):
    """A single night that is declared a reference is there too; the stack is deeper, and that is said."""
    _, request = field
    night(0, observation_id="ref_single")
    result = build_reference(request)
    later = night(3)
    (run,) = [row for row in rows(database, DifferenceRun) if str(row.observation_id) == later]
    choice = run.result["reference_choice"]
    assert str(run.reference_id) == result["reference_id"]
    assert (choice["n_references"], len(choice["considered"])) == (2, 2)
    assert "ref_single" in choice["reason"]
    assert "than ref_single: " in choice["reason"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"filter_band": "g"}, "0 preprocessed observations of survey survey_456 in filter g lie on"),
        ({"filter_band": None}, "0 preprocessed observations of survey survey_456 in no filter lie on"),
        ({"survey_id": "nobody"}, "0 preprocessed observations of survey nobody"),
        ({"ra": 10.0}, "0 preprocessed observations of survey survey_456 in filter r lie on 10.00000"),
    ],
)
def test_where_nothing_can_be_stacked_it_is_said(field, changes, sentence):
    """Survey, filter and place are those of the request."""
    with pytest.raises(NothingToDo, match=sentence):
        build_reference(field[1] | changes)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (
            None,
            "a request for a reference is an object with survey_id, ra, dec, filter_band, most, got NoneType",
        ),
        ({"ra": 1, "dec": 2, "radius": 3}, "a request for a reference has radius; expected survey_id"),
        ({"ra": 400, "dec": 2}, "ra must be a number of degrees from 0 to 360, got 400"),
        ({"ra": 1, "dec": True}, "dec must be a number of degrees from -90 to 90, got True"),
        ({"ra": 1, "dec": 2, "most": 1}, "most must be a whole number from 2 to 200, got 1"),
        (
            {"ra": 1, "dec": 2, "filter_band": 3},
            "survey_id and filter_band must be text, got 'default' and 3",
        ),
    ],
)
def test_a_bad_request_is_refused_for_good(database, request_, sentence):
    """With the field, its value and what was expected."""
    with pytest.raises(SettingRejected, match=sentence):
        build_reference(request_)


def test_the_verb_builds_and_registers_one(field, sent, capsys):
    """`astrid reference --from-observations`: the same, from the command line, with and without --json."""
    _, request = field
    words = ["reference", "--from-observations", "--survey", SURVEY, "--filter", "r", "--most", "3"]
    place = f"--field={request['ra']},{request['dec']}"
    assert main([*words, place, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ending"], told["grade"]["n_frames"], told["is_repeat"]) == ("done", 3, False)
    assert main([*words, place]) == 0
    assert "stood already: 3 frames, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["--field", "1;2"], 2, "--field must be RA,DEC in degrees, as 150.1,2.2, got '1;2'"),
        ([], 2, "--field must be RA,DEC in degrees, as 150.1,2.2, got None"),
        (["--field", "1,2", "--out", "x.fits"], 2, "takes no files and no --out"),
        (["--field", "1,2", "--flat", "x.fits"], 2, "takes no --bias, --dark or --flat"),
        (["--field", "1,2", "--most", "1000"], 2, "most must be a whole number from 2 to 200"),
        (["--field", "1,2"], 3, "0 preprocessed observations of survey default in no filter lie on"),
    ],
)
def test_the_verb_says_what_it_cannot_do(database, words, status, sentence, capsys):
    """Exit status and sentence."""
    assert main(["reference", "--from-observations", *words]) == status
    assert sentence in capsys.readouterr().err
