"""The night that the demonstration observes: fields with a reference, a science frame and known transients.

Owns which fields there are and how they differ; draws nothing but from the seed, and never sends a message.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from astrid_workers.identity import observation_uuid, survey_uuid
from astrid_workers.sky import make_sky
from astrid_workers.sky.sky_to_fits import sky_to_fits

#: Survey that the demonstration's observations belong to.
SURVEY = "demo-sky"

#: Side of a frame, pixels.
SIDE_PX = 640

#: Start of the night; nothing is read from a clock, so that a night can be repeated.
DUSK = datetime(2026, 3, 14, 2, 30, tzinfo=UTC)

#: Degrees between the centres of neighbouring fields, far more than a frame is wide.
FIELD_STEP_DEG = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field as it was written to disk: two files, two payloads, and the truth."""

    science_payload: dict[str, Any]
    reference_payload: dict[str, Any]
    #: Rows of `sky.TRUTH_DTYPE`.
    truth: NDArray[Any]
    area_mpix: float
    fwhm_science_px: float

    @property
    def external_id(self) -> str:
        """The science observation's id."""
        return str(self.science_payload["observation_id"])


def observation_id(field: Field) -> UUID:
    """The id that the pipeline gives the field's science observation."""
    return observation_uuid(survey_uuid(SURVEY), field.external_id)


def write_field(index: int, *, seed: int, folder: Path) -> Field:
    """Draw field `index` of the night and write its two frames under `folder`.

    Seeing, transparency, sky brightness and pointing error change from field to field as they do in a night;
    the reference is deeper and sharper. Saturated stars, galaxies, cosmic rays and a small registration error
    are on.
    """
    rng = np.random.default_rng([seed, index])
    ra_deg, dec_deg = 150.0 + FIELD_STEP_DEG * index, 2.0
    fwhm_px = float(rng.uniform(2.8, 4.0))
    sky = make_sky(
        seed=seed * 10_000 + index,
        shape=(SIDE_PX, SIDE_PX),
        n_stars=240,
        n_transients=12,
        n_galaxies=60,
        n_saturated=2,
        n_cosmic_rays=10,
        fwhm_science_px=fwhm_px,
        fwhm_reference_px=float(rng.uniform(2.4, 3.2)),
        transparency=float(rng.uniform(0.7, 1.0)),
        reference_depth=2.0,
        sky_e=float(rng.uniform(300, 800)),
        offset_px=(float(rng.uniform(-6, 6)), float(rng.uniform(-6, 6))),
        rotation_deg=float(rng.uniform(-0.2, 0.2)),
        shift_field_px=0.05,
        negative_fraction=0.15,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
    )
    folder.mkdir(parents=True, exist_ok=True)
    science, reference = (folder / f"field-{index:03d}-{kind}.fits" for kind in ("science", "reference"))
    science_bytes, reference_bytes = sky_to_fits(sky)
    science.write_bytes(science_bytes)
    reference.write_bytes(reference_bytes)
    taken = DUSK + timedelta(minutes=3 * index)
    payload = {"survey_id": SURVEY, "ra": ra_deg, "dec": dec_deg, "filter_band": "r", "exposure_time": 60.0}
    return Field(
        science_payload={
            **payload,
            "observation_id": f"night1-{index:03d}",
            "observation_time": taken.isoformat(),
            "fits_url": science.resolve().as_uri(),
        },
        reference_payload={
            **payload,
            "observation_id": f"ref_{index:03d}",
            "observation_time": (taken - timedelta(days=120)).isoformat(),
            "fits_url": reference.resolve().as_uri(),
            "is_reference": True,
        },
        truth=sky.truth,
        area_mpix=SIDE_PX * SIDE_PX / 1e6,
        fwhm_science_px=fwhm_px,
    )
