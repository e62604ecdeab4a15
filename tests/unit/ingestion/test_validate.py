"""What is wrong with a payload, as a table of sentences."""

import math
from datetime import UTC, datetime

import pytest

from astrid_workers.errors import ObservationRejected
from astrid_workers.ingestion.validate import errors_in, parse_payload

#: The example of the earlier system's README.
GOOD = {
    "observation_id": "obs_123",
    "survey_id": "survey_456",
    "ra": 180.0,
    "dec": 30.0,
    "observation_time": "2024-01-01T12:00:00Z",
}


def test_the_readme_example_is_good():
    """Whatever earlier clients send as their example works."""
    assert errors_in(GOOD) == []
    payload = parse_payload(GOOD)
    assert (payload.survey, payload.external_id, payload.ra_deg, payload.dec_deg) == (
        "survey_456",
        "obs_123",
        180.0,
        30.0,
    )
    assert payload.observation_time == datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert payload.fits_url is None


def test_what_the_payload_does_not_say_is_none_and_not_a_default():
    """An exposure of 300 s that nobody measured would be an invented number."""
    payload = parse_payload(GOOD)
    assert (payload.filter_band, payload.exposure_time_s, payload.airmass) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"ra": None}, ["Missing required field: ra"]),
        (
            {"survey_id": None, "dec": None},
            ["Missing required field: survey_id", "Missing required field: dec"],
        ),
        ({"ra": 360.0}, ["RA must be between 0 and 360 degrees"]),
        ({"ra": -0.001}, ["RA must be between 0 and 360 degrees"]),
        ({"dec": 90.0001}, ["Dec must be between -90 and 90 degrees"]),
        ({"dec": -91}, ["Dec must be between -90 and 90 degrees"]),
        ({"exposure_time": 0}, ["Exposure time must be positive"]),
        ({"airmass": -1.0}, ["Airmass must be positive"]),
        ({"ra": math.nan}, ["RA must be a finite number"]),
        ({"dec": -math.inf}, ["Dec must be a finite number"]),
        ({"exposure_time": 10**400}, ["Exposure time must be a finite number"]),
        ({"ra": True}, ["RA must be a number, not bool"]),
        ({"seeing": "1.2"}, ["Seeing must be a number, not str"]),
        ({"pixel_scale": [1]}, ["Pixel scale must be a number, not list"]),
        (
            {"ra": math.nan, "dec": 100},
            ["RA must be a finite number", "Dec must be between -90 and 90 degrees"],
        ),
        ({"observation_id": ""}, ["observation_id must be a text of 1 to 200 characters"]),
        ({"observation_id": "x" * 201}, ["observation_id must be a text of 1 to 200 characters"]),
        ({"survey_id": 5}, ["survey_id must be a text of 1 to 200 characters"]),
        (
            {"observation_id": "a\0b"},
            ["observation_id must have no control characters and no spaces around it"],
        ),
        (
            {"observation_id": " a"},
            ["observation_id must have no control characters and no spaces around it"],
        ),
        ({"filter_band": 5}, ["filter_band must be a text of up to 64 characters"]),
        ({"is_reference": 1}, ["is_reference must be true or false"]),
        ({"is_reference": "yes"}, ["is_reference must be true or false"]),
        ({"fits_url": 7}, ["fits_url must be an address of up to 2000 printable characters"]),
        ({"fits_url": "https://x/\n"}, ["fits_url must be an address of up to 2000 printable characters"]),
        ({"mask_url": "x" * 2001}, ["mask_url must be an address of up to 2000 printable characters"]),
        ({"calibration": "x"}, ["calibration must be an object"]),
        (
            {"calibration": {"bias": "x"}},
            ["calibration has bias; expected bias_frame, dark_frame, flat_frame"],
        ),
        (
            {"calibration": {"bias_frame": 3}},
            ["bias_frame must be an address of up to 2000 printable characters"],
        ),
    ],
)
def test_each_broken_rule_has_its_sentence(changes, errors):
    """Earlier sentences word for word, and every fault named at once."""
    assert errors_in({**GOOD, **changes}) == errors


@pytest.mark.parametrize(
    "time",
    [
        "yesterday",
        "",
        "2024-13-01T00:00:00",
        "2024-01-01T25:00:00Z",
        1704110400,
        True,
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_a_bad_time_is_said(time):
    """The earlier system accepted garbage here."""
    assert errors_in({**GOOD, "observation_time": time}) == [
        "Observation time must be an ISO 8601 time such as 2024-01-01T12:00:00Z"
    ]


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_a_payload_that_is_no_object_is_said(data):
    """Messages come from anybody."""
    assert errors_in(data) == ["Observation data must be an object"]


@pytest.mark.parametrize(
    "changes",
    [{"ra": 0}, {"ra": 359.9999}, {"dec": -90}, {"dec": 90}, {"fits_url": ""}, {"filter_band": None}],
)
def test_the_edges_of_the_rules_are_good(changes):
    """Limits are where the sentences say they are."""
    assert errors_in({**GOOD, **changes}) == []


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2024-01-01T12:00:00", 12), ("2024-01-01T12:00:00+02:00", 10), ("2024-01-01 12:00:00.5Z", 12)],
)
def test_times_become_utc(text, hour):
    """A time without a zone is UTC."""
    time = parse_payload({**GOOD, "observation_time": text}).observation_time
    assert (time.hour, time.tzinfo) == (hour, UTC)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"is_reference": True}, True),
        ({"observation_id": "ref_12"}, True),
        ({"observation_id": "xref_12"}, False),
    ],
)
def test_a_reference_is_declared_or_named_so(changes, expected):
    """The old convention of ids that start with ref_ still counts."""
    assert parse_payload({**GOOD, **changes}).is_reference is expected


def test_companions_are_found_beside_the_frame_and_under_calibration():
    """Both places that clients use; empty ones are none."""
    payload = parse_payload(
        {**GOOD, "mask_url": "/m", "noise_url": "", "dark_frame": "/d", "calibration": {"bias_frame": "/b"}}
    )
    assert dict(payload.companions) == {"mask": "/m", "bias_frame": "/b", "dark_frame": "/d"}


def test_a_rejected_payload_carries_all_sentences():
    """The dead letter says what to mend."""
    with pytest.raises(ObservationRejected) as rejected:
        parse_payload({**GOOD, "ra": 400, "dec": None})
    assert rejected.value.errors == ["Missing required field: dec", "RA must be between 0 and 360 degrees"]
