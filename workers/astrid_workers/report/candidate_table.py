"""Candidates as an ECSV table.

Owns column names, units and masking; never selects a candidate.
"""

from collections.abc import Sequence

import numpy as np
from astropy import units as u
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray

from astrid_workers.differencing.forced_photometry import magnitudes
from astrid_workers.differencing.products import Candidate
from astrid_workers.report.ecsv import ecsv_text

#: What the columns of magnitudes hold, as the table says it.
_MAGNITUDES = {
    "mag": "magnitude of flux by the zero point of the science frame, where flux is positive",
    "mag_err": "1-sigma error of mag",
    "limit_mag": "magnitude of 5 flux_err: the 5-sigma limit at this place of the difference",
}


def candidates_ecsv(
    candidates: Sequence[Candidate],
    unit: str,
    *,
    zero_point_mag: float | Sequence[float | None] | None = None,
    parts: Sequence[str] | None = None,
) -> str:
    """The text of `candidates.ecsv`, strongest first.

    `x, y` are zero-based pixels of the science frame; `ra_deg, dec_deg` are masked without a WCS; `flux,
    flux_err` are in the frame's unit; `score` is signed, `snr` is not; `confidence` is masked: nothing
    calibrated it. `flags` holds the names of what speaks against a candidate, joined by commas, empty for a
    clean one. `parts` names the part of a mosaic that each lies on: the column `part`, there only then.
    `mag, mag_err, limit_mag` follow from `zero_point_mag`, the magnitude of a flux of 1 in `unit`, of the
    frame or of each candidate's part; masked without one, and `mag, mag_err` where the flux is negative.
    """
    table = Table()
    if parts is not None:
        table["part"] = MaskedColumn(list(parts), dtype=str)
    flux_unit = u.Unit(unit, parse_strict="silent")
    table["x"] = _floats([c.x for c in candidates], u.pix)
    table["y"] = _floats([c.y for c in candidates], u.pix)
    table["ra_deg"] = _floats([c.ra_deg for c in candidates], u.deg)
    table["dec_deg"] = _floats([c.dec_deg for c in candidates], u.deg)
    table["flux"] = _floats([c.flux for c in candidates], flux_unit)
    table["flux_err"] = _floats([c.flux_err for c in candidates], flux_unit)
    table["snr"] = _floats([c.snr for c in candidates])
    table["score"] = _floats([c.score for c in candidates])
    table["confidence"] = _floats([None] * len(candidates))
    table["flags"] = MaskedColumn([",".join(c.flags) for c in candidates], dtype=str)
    table["x_err"] = _floats([c.x_err for c in candidates], u.pix)
    table["y_err"] = _floats([c.y_err for c in candidates], u.pix)
    table["fwhm_px"] = _floats([c.fwhm_px for c in candidates], u.pix)
    table["elongation"] = _floats([c.elongation for c in candidates])
    table["chi2"] = _floats([c.chi2 for c in candidates])
    for name, values in zip(_MAGNITUDES, _magnitudes(candidates, zero_point_mag), strict=True):
        table[name] = _floats(values.tolist(), u.mag)
        table[name].description = _MAGNITUDES[name]
    return ecsv_text(table)


def _magnitudes(
    candidates: Sequence[Candidate], zero_point_mag: float | Sequence[float | None] | None
) -> tuple[NDArray[np.float64], ...]:
    flux = np.array([c.flux for c in candidates], float)
    error = np.array([c.flux_err for c in candidates], float)
    return magnitudes(flux, error, np.array(zero_point_mag, float))


def _floats(values: Sequence[float | None], unit: u.UnitBase | None = None) -> MaskedColumn:
    known = [np.nan if value is None else value for value in values]
    mask = [value is None or not np.isfinite(value) for value in values]
    return MaskedColumn(known, mask=mask, dtype=np.float64, unit=unit)
