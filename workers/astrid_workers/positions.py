"""Positions that a user gives, in pixels or on the sky.

Owns the CSV file and the way onto a frame; never measures.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.celestial import pixel_of, sky_of
from astrid_workers.errors import SettingRejected

Floats = NDArray[np.float64]

#: Pairs of columns that say where, the first pair that is there counts.
PIXEL_COLUMNS, SKY_COLUMNS = ("x", "y"), ("ra_deg", "dec_deg")
#: Other spellings of the columns.
_SPELLINGS = {"ra": "ra_deg", "dec": "dec_deg", "x_px": "x", "y_px": "y", "id": "name"}
#: More positions than this are a catalogue given by mistake.
MOST_POSITIONS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Places of one length; NaN where that kind of coordinate was not given."""

    names: tuple[str, ...]
    #: 0-based pixels.
    x: Floats
    y: Floats
    #: ICRS degrees.
    ra_deg: Floats
    dec_deg: Floats

    def __len__(self) -> int:
        return len(self.names)

    def only(self, keep: NDArray[np.bool_]) -> "Positions":
        """The places where `keep` is True."""
        names = tuple(name for name, kept in zip(self.names, keep, strict=True) if kept)
        return Positions(names, self.x[keep], self.y[keep], self.ra_deg[keep], self.dec_deg[keep])

    @classmethod
    def joined(cls, parts: "Sequence[Positions]") -> "Positions":
        """The places of all."""
        names = tuple(name for part in parts for name in part.names)
        columns = ("x", "y", "ra_deg", "dec_deg")
        return cls(names, *(np.concatenate([getattr(part, c) for part in parts]) for c in columns))

    def on(self, wcs: WCS | None) -> "Positions":
        """The same places with pixels from the sky or the sky from pixels, through the frame's `wcs`.

        A place that the projection does not have stays NaN. Raises SettingRejected when sky positions meet
        a frame without a WCS.
        """
        by_sky = np.isnan(self.x) & np.isfinite(self.ra_deg)
        if wcs is None:
            if by_sky.any():
                msg = "positions in RA and Dec need a WCS, and the science frame has none: give x and y"
                raise SettingRejected(msg)
            return self
        if by_sky.any():
            x, y = _to_pixels(wcs, self.ra_deg, self.dec_deg)
            return replace(self, x=x, y=y)
        ra, dec = sky_of(wcs, self.x, self.y)
        return replace(self, ra_deg=np.asarray(ra, float), dec_deg=np.asarray(dec, float))


def read_positions(text: str, file: str) -> Positions:
    """Positions from CSV with a heading: `x,y` (0-based pixels) or `ra_deg,dec_deg` (ICRS), perhaps `name`.

    Lines that begin with # are left out. Raises SettingRejected with file, line and what was expected.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if _counts(line)]
    rows = list(csv.reader(io.StringIO("\n".join(line for _, line in lines)), skipinitialspace=True))
    heading = [_SPELLINGS.get(word.strip().lower(), word.strip().lower()) for word in rows[0]] if rows else []
    columns = next((pair for pair in (PIXEL_COLUMNS, SKY_COLUMNS) if set(pair) <= set(heading)), None)
    if columns is None:
        msg = (
            f"{file}: no columns x,y or ra_deg,dec_deg in its heading, found: {', '.join(heading) or 'none'}"
        )
        raise SettingRejected(msg)
    if len(rows) - 1 > MOST_POSITIONS:
        msg = f"{file}: {len(rows) - 1} positions, at most {MOST_POSITIONS}"
        raise SettingRejected(msg)
    where = [f"{file}: line {number}" for number, _ in lines[1:]]
    body = [dict(zip(heading, row, strict=False)) for row in rows[1:]]
    first, second = (
        np.array([_number(row, column, at) for row, at in zip(body, where, strict=True)], float)
        for column in columns
    )
    names = tuple((row.get("name") or "").strip() or str(i) for i, row in enumerate(body))
    nothing = np.full(len(body), np.nan)
    if columns == PIXEL_COLUMNS:
        return Positions(names, first, second, nothing, nothing)
    _refuse_declination(second, where)
    return Positions(names, nothing, nothing, first % 360, second)


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _number(row: dict[str, str], column: str, where: str) -> float:
    text = (row.get(column) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"{where}: {column} is {text[:30]!r}, expected a number"
        raise SettingRejected(msg)
    return value


def _refuse_declination(dec: Floats, where: list[str]) -> None:
    for value, at in zip(dec, where, strict=True):
        if abs(value) > 90:
            msg = f"{at}: dec_deg is {value:g}, expected -90 to 90"
            raise SettingRejected(msg)


def _to_pixels(wcs: WCS, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Pixels of sky positions, NaN where the projection has none."""
    x, y = pixel_of(wcs, ra, dec)
    # a projection has points on the other side of the sky too: what does not come back is not there
    back_ra, back_dec = sky_of(wcs, x, y)
    apart = np.hypot((back_ra - ra + 180) % 360 - 180, back_dec - dec)
    there = np.isfinite(apart) & (apart < 1e-3)
    return np.where(there, x, np.nan), np.where(there, y, np.nan)
