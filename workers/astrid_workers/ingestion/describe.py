"""What is said of an observation in the results of ingestion.

Owns the keys that clients know; never fetches, never stores. What nobody measured is None.
"""

import importlib.metadata
import math
from datetime import datetime
from typing import Any

from astrid_workers.ingestion.validate import ObservationPayload
from astrid_workers.storage.artifacts import Artifact
from astrid_workers.storage.column_types import plain_json

#: Half the side of the region around a position that `sky_region` describes, in degrees.
REGION_HALF_SIDE_DEG = 0.1


def metadata_of(payload: ObservationPayload, original: dict[str, Any], now: datetime) -> dict[str, Any]:
    """`metadata` of an ingest result.

    `calculated_airmass` is the one given, else None: to compute it takes the site, which no payload has.
    """
    return {
        "original_data": plain_json(original),
        "processed_at": now.isoformat(),
        "processing_version": importlib.metadata.version("astrid"),
        "calculated_airmass": payload.airmass,
        "sky_region": sky_region(payload.ra_deg, payload.dec_deg),
        "quality_indicators": {
            "has_coordinates": True,
            "has_exposure_time": payload.exposure_time_s is not None,
            "has_filter": payload.filter_band is not None,
            "has_airmass": payload.airmass is not None,
            "has_seeing": payload.seeing_arcsec is not None,
        },
    }


def sky_region(
    ra_deg: float, dec_deg: float, half_side_deg: float = REGION_HALF_SIDE_DEG
) -> dict[str, float]:
    """The smallest box in RA and Dec that holds the circle of this radius around the point.

    Across RA 0, `ra_min` is greater than `ra_max`. Around a pole it is 0 to 360.
    """
    dec_min, dec_max = dec_deg - half_side_deg, dec_deg + half_side_deg
    if dec_max >= 90.0 or dec_min <= -90.0:
        return _box(0.0, 360.0, max(-90.0, dec_min), min(90.0, dec_max))
    ratio = math.sin(math.radians(half_side_deg)) / math.cos(math.radians(dec_deg))
    half_width = math.degrees(math.asin(ratio))
    return _box((ra_deg - half_width) % 360.0, (ra_deg + half_width) % 360.0, dec_min, dec_max)


def storage_of(url: str | None, frame: Artifact | None, now: datetime) -> dict[str, Any]:
    """`storage` of a result; paths are keys of the artifact store. No thumbnail is made, so it has none."""
    return {
        "fits_file_path": frame.key if frame else None,
        "thumbnail_path": None,
        "storage_metadata": {
            "original_url": url,
            "stored_at": now.isoformat() if frame else None,
            "file_size": frame.size_bytes if frame else None,
            "sha256": frame.sha256 if frame else None,
        },
    }


def _box(ra_min: float, ra_max: float, dec_min: float, dec_max: float) -> dict[str, float]:
    return {"ra_min": ra_min, "ra_max": ra_max, "dec_min": dec_min, "dec_max": dec_max}
