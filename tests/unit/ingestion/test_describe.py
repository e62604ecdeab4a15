"""What is said of a payload: measured, given, or null."""

import json
import math
from datetime import UTC, datetime

import pytest

from astrid_workers.ingestion.describe import metadata_of, sky_region, storage_of
from astrid_workers.ingestion.validate import parse_payload
from astrid_workers.storage.artifacts import Artifact

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DATA = {"survey_id": "s", "observation_id": "o", "ra": 10.0, "dec": 60.0, "observation_time": "2026-01-01"}


def test_the_region_is_as_wide_as_the_sky_is_there():
    """At Dec 60 a tenth of a degree is two tenths in RA."""
    region = sky_region(10.0, 60.0)
    assert region["ra_max"] - region["ra_min"] == pytest.approx(0.4, abs=2e-3)
    assert (region["dec_min"], region["dec_max"]) == pytest.approx((59.9, 60.1))


@pytest.mark.parametrize(("ra", "low", "high"), [(0.0, 359.9, 0.1), (359.95, 359.85, 0.05)])
def test_the_region_goes_on_across_ra_zero(ra, low, high):
    """The earlier system gave −0.1 and 360.05."""
    region = sky_region(ra, 0.0)
    assert (region["ra_min"], region["ra_max"]) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("dec", [90.0, 89.95, -89.92])
def test_the_region_around_a_pole_is_all_around(dec):
    """And ends at the pole."""
    region = sky_region(10.0, dec)
    assert (region["ra_min"], region["ra_max"]) == (0.0, 360.0)
    assert max(abs(region["dec_min"]), abs(region["dec_max"])) == 90.0


def test_metadata_has_the_keys_that_clients_know():
    """And no airmass that nobody measured."""
    metadata = metadata_of(parse_payload(DATA), {**DATA, "odd": math.nan}, NOW)
    assert set(metadata) == {
        "original_data", "processed_at", "processing_version", "calculated_airmass", "sky_region", "quality_indicators",
    }  # fmt: skip
    assert metadata["calculated_airmass"] is None
    assert metadata["quality_indicators"] == {
        "has_coordinates": True, "has_exposure_time": False, "has_filter": False, "has_airmass": False, "has_seeing": False,
    }  # fmt: skip
    json.dumps(metadata, allow_nan=False)


def test_storage_says_where_the_frame_is_or_nothing():
    """No path that was not written."""
    stored = storage_of("https://x/y", Artifact("observations/1/raw.fits", "ab", 7), NOW)
    assert stored["fits_file_path"] == "observations/1/raw.fits"
    assert stored["storage_metadata"]["file_size"] == 7
    empty = storage_of(None, None, NOW)
    assert [empty["fits_file_path"], empty["thumbnail_path"], *empty["storage_metadata"].values()] == [
        None
    ] * 6
