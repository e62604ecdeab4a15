"""Forced photometry as an ECSV table.

Owns column names, units and masking; never measures.
"""

from collections.abc import Sequence

import numpy as np
from astropy import units as u
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray

from astrid_workers.differencing.forced_photometry import ForcedFluxes
from astrid_workers.positions import Positions
from astrid_workers.report.ecsv import ecsv_text


def forced_ecsv(
    positions: Positions, forced: ForcedFluxes, unit: str, *, parts: Sequence[str] | None = None
) -> str:
    """The text of `forced.ecsv`, one row per position in the order given; what was not measured is masked.

    Fluxes and 5-sigma limits are in the science frame's unit and on its scale, the reference's too.
    Magnitudes are masked without a zero point, and below 3 sigma; that of the difference is of |flux|.
    `parts` names the part of a mosaic that each row was measured on: the column `part`, there only then.
    """
    table = Table()
    flux = u.Unit(unit, parse_strict="silent")
    if parts is not None:
        table["part"] = MaskedColumn(list(parts), dtype=str)
    table["name"] = MaskedColumn(list(positions.names), dtype=str)
    for column, values, kind in (
        ("x", forced.x, u.pix),
        ("y", forced.y, u.pix),
        ("ra_deg", positions.ra_deg, u.deg),
        ("dec_deg", positions.dec_deg, u.deg),
        ("difference_flux", forced.difference_flux, flux),
        ("difference_flux_err", forced.difference_flux_err, flux),
        ("difference_limit", forced.difference_limit, flux),
        ("science_flux", forced.science_flux, flux),
        ("science_flux_err", forced.science_flux_err, flux),
        ("science_limit", forced.science_limit, flux),
        ("reference_flux", forced.reference_flux, flux),
        ("reference_flux_err", forced.reference_flux_err, flux),
        ("difference_mag", forced.difference_mag, u.mag),
        ("difference_mag_err", forced.difference_mag_err, u.mag),
        ("difference_limit_mag", forced.difference_limit_mag, u.mag),
        ("science_mag", forced.science_mag, u.mag),
        ("science_mag_err", forced.science_mag_err, u.mag),
        ("science_limit_mag", forced.science_limit_mag, u.mag),
    ):
        table[column] = _column(values, kind)
    return ecsv_text(table)


def _column(values: NDArray[np.float64], unit: u.UnitBase) -> MaskedColumn:
    return MaskedColumn(values, mask=~np.isfinite(values), dtype=np.float64, unit=unit)
