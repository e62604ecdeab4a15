"""What is measured of detections without truth."""

import dataclasses
import math
import uuid

import numpy as np
import pytest

from astrid_workers.detection import metrics
from astrid_workers.found_detections import FoundDetection


def found(x=10.0, y=20.0, **changes):
    plain = FoundDetection(
        detection_id=uuid.uuid4(),
        candidate_id=uuid.uuid4(),
        x=x,
        y=y,
        ra_deg=180.0,
        dec_deg=30.0,
        flux=1000.0,
        flux_err=50.0,
        snr=20.0,
        score=20.0,
        fwhm_px=3.0,
        is_positive=True,
        confidence=None,
        label=None,
        severity="high",
        triplet_key=None,
    )
    return dataclasses.replace(plain, **changes)


def test_a_distribution_of_nothing_is_null_not_zero():
    """No values: no mean."""
    assert metrics.distribution([]) == {"mean": None, "std": None, "min": None, "max": None}


def test_a_distribution_has_the_population_scatter():
    """Mean, scatter and extremes of 1, 2, 3."""
    measured = metrics.distribution([1.0, 2.0, 3.0], "_area")

    assert {
        "mean_area": 2.0,
        "std_area": math.sqrt(2 / 3),
        "min_area": 1.0,
        "max_area": 3.0,
    } == pytest.approx(measured)


def test_density_counts_per_million_pixels():
    """Three detections on half a million pixels are six per million; without a shape it is unknown."""
    assert metrics.density_per_mpix(3, 1000, 500) == 6.0
    assert metrics.density_per_mpix(3, None, 500) is None


def test_clustering_is_one_for_a_random_scatter_and_small_for_clumps():
    """Clark and Evans' index tells a random field from a clump."""
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0, 1000, (2, 4000))

    assert pytest.approx(metrics.clustering(x, y, 1e6), abs=0.05) == 1.0
    assert metrics.clustering(x / 100, y / 100, 1e6) < 0.05
    assert metrics.clustering(x[:1], y[:1], 1e6) is None


@pytest.mark.parametrize(
    ("changes", "is_valid"),
    [
        ({}, True),
        ({"x": -0.5}, True),
        ({"x": -0.6}, False),
        ({"y": 99.6}, False),
        ({"ra_deg": 360.0}, False),
        ({"dec_deg": -90.1}, False),
        ({"ra_deg": None, "dec_deg": None}, True),
        ({"ra_deg": None}, False),
    ],
)
def test_coordinates_must_lie_in_the_frame_and_on_the_sky(changes, is_valid):
    """Positions outside the frame, off the sky, or half known are invalid."""
    assert is_valid is metrics.coordinates_are_valid([found(**changes)], 200, 100)


def test_counts_by_confidence_are_unknown_where_the_model_gave_none():
    """Null is not zero: an uncalibrated model has no high-confidence count."""
    unknown = metrics.confidence_counts([found()])
    known = metrics.confidence_counts([found(confidence=c) for c in (0.9, 0.8, 0.6, 0.1)])

    assert unknown == {"high_confidence": None, "medium_confidence": None, "low_confidence": None}
    assert known == {"high_confidence": 2, "medium_confidence": 1, "low_confidence": 1}


def test_counts_by_label_are_unknown_where_the_model_gave_none():
    """The same for labels."""
    assert metrics.label_counts([found()])["transient_detections"] is None
    assert (
        metrics.label_counts([found(label="transient"), found(label="unknown")])["transient_detections"] == 1
    )


def test_checks_that_cannot_be_made_are_null():
    """No confidence, no label, no width: nothing to check."""
    bare = [found(fwhm_px=None)]

    assert metrics.boxes_are_valid(bare) is None
    assert metrics.confidences_are_valid(bare) is None
    assert metrics.labels_are_valid(bare) is None


def test_nonsense_is_noticed():
    """A confidence above one, a label that nobody knows."""
    assert metrics.confidences_are_valid([found(confidence=1.2)]) is False
    assert metrics.labels_are_valid([found(label="dragon")]) is False
