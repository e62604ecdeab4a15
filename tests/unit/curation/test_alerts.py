"""Which detections raise alerts, in what order, and which are held back."""

import dataclasses
import uuid

import pytest

from astrid_workers.curation.alerts import AlertPolicy, SkyContext, alert_message, alerts_for
from astrid_workers.curation.events import events_for
from astrid_workers.found_detections import FoundDetection
from astrid_workers.significance import priority_of

CONTEXT = SkyContext("obs_123", "r", difference_passed=True)
POLICY = AlertPolicy(min_score=10.0, most_per_run=3)


def found(score, **changes):
    plain = FoundDetection(
        detection_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{score}"),
        candidate_id=uuid.uuid4(),
        x=10.0,
        y=20.0,
        ra_deg=180.0,
        dec_deg=-30.0,
        flux=1000.0,
        flux_err=50.0,
        snr=abs(score),
        score=score,
        fwhm_px=3.0,
        is_positive=score > 0,
        confidence=None,
        label=None,
        severity="high",
        triplet_key=None,
    )
    return dataclasses.replace(plain, **changes)


@pytest.mark.parametrize(("score", "priority"), [(20, "high"), (-25, "high"), (10, "medium"), (-9.99, "low")])
def test_priority_goes_by_the_strength_of_either_sign(score, priority):
    """High from 20 sigma, medium from 10."""
    assert priority == priority_of(score)


def test_every_detection_gets_one_event_with_its_priority():
    """What a model kept, a person may refuse, however weak it is."""
    events = events_for([found(30.0), found(6.0)])

    assert [event.priority for event in events] == ["high", "low"]
    assert len({event.event_id for event in events}) == 2


def test_ids_come_from_the_detection():
    """The same detection curated twice gives the same event and the same alert."""
    assert events_for([found(30.0)]) == events_for([found(30.0)])
    assert alerts_for([found(30.0)], CONTEXT, POLICY) == alerts_for([found(30.0)], CONTEXT, POLICY)


def test_detections_below_the_score_raise_nothing():
    """9.9 sigma of either sign is for review only, and is not counted as held back."""
    plan = alerts_for([found(9.9), found(-9.9)], CONTEXT, POLICY)

    assert (plan.raised, plan.withheld) == ((), 0)


def test_a_star_that_vanished_is_news_too():
    """Negative scores raise alerts, and say so."""
    (alert,) = alerts_for([found(-15.0)], CONTEXT, POLICY).raised

    assert alert.message.startswith("A fading of -15.0 sigma")


def test_the_strongest_are_raised_and_the_rest_is_counted():
    """A bad night cannot flood a channel, and nobody is told that it was quiet."""
    plan = alerts_for([found(s) for s in (11.0, -50.0, 12.0, 13.0, 14.0)], CONTEXT, POLICY)

    assert [alert.title.split()[0] for alert in plan.raised] == ["-50.0", "+14.0", "+13.0"]
    assert plan.withheld == 2
    assert "more than 3" in plan.withheld_because


def test_a_difference_that_failed_its_validation_does_not_shout():
    """Its alerts are of low severity, whatever their score, and their message says why."""
    context = dataclasses.replace(CONTEXT, difference_passed=False)
    (alert,) = alerts_for([found(30.0)], context, POLICY).raised

    assert alert.severity == "low"
    assert alert.message.endswith("The difference did not pass its validation.")


def test_only_a_calibrated_confidence_makes_a_high_confidence_transient():
    """Without a confidence the alert does not claim one."""
    plain, confident = alerts_for([found(30.0), found(29.0, confidence=0.9)], CONTEXT, POLICY).raised

    assert plain.alert_type == "significant_detection"
    assert confident.alert_type == "high_confidence_transient"


def test_the_message_has_place_band_and_what_is_not_known():
    """A person reads one sentence with sky position, pixel, observation and band."""
    text = alert_message(found(30.0), CONTEXT)

    assert "(confidence not calibrated)" in text
    assert "RA 180.00000°, Dec -30.00000° (pixel x 10.0, y 20.0)" in text
    assert text.endswith("in observation obs_123, band r.")


def test_without_a_wcs_the_message_has_the_pixel_only():
    """No invented coordinates."""
    assert "RA" not in alert_message(found(30.0, ra_deg=None, dec_deg=None), CONTEXT)
