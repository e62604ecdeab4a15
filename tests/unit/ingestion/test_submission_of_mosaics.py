"""What `astrid submit` says of a mosaic."""

import pytest

from astrid_workers.ingestion.listing import items_of
from astrid_workers.ingestion.submission import prepared
from astrid_workers.sky.sky_to_fits import sky_to_fits
from astrid_workers.storage.fits import FitsLimits
from support.mosaics import chip, mosaic


def test_a_mosaic_lies_in_the_middle_of_its_parts(tmp_path):
    """Position is that of all chips, the other facts are those of the header."""
    data = mosaic({"N1": sky_to_fits(chip(71, 150.0))[0], "S2": sky_to_fits(chip(72, 150.2))[0]})
    (tmp_path / "night.fits").write_bytes(data)
    (item,) = items_of([tmp_path])
    payload = prepared(item, {"observation_time": "2024-01-01T12:00:00Z"}, FitsLimits()).payload
    assert (payload["ra"], payload["dec"]) == pytest.approx((150.1, 2.0), abs=1e-3)
    assert payload["exposure_time"] > 0
