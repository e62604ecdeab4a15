"""How the reference's pixel grid lies on the science frame's, and the WCS of both.

Owns the true mapping of a simulated pair; never measures one.
"""

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """`(x_r, y_r) = matrix · (x, y) + shift`: from 0-based science pixels to 0-based reference pixels."""

    matrix: Float64Array
    shift: Float64Array
    out_shape: tuple[int, int]
    rotation_deg: float
    #: Reference pixels per science pixel.
    scale: float

    @classmethod
    def about(
        cls,
        shape: tuple[int, int],
        *,
        offset_px: tuple[float, float],
        rotation_deg: float,
        scale: float,
        out_shape: tuple[int, int] | None,
    ) -> "Grid":
        """Turned and scaled about the centre of `shape`, carried to that of `out_shape`, then shifted."""
        out = out_shape or shape
        angle = np.radians(rotation_deg)
        matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
        out_centre = np.array([(out[1] - 1) / 2, (out[0] - 1) / 2])
        return cls(matrix, out_centre + np.array(offset_px) - matrix @ centre, out, rotation_deg, scale)

    def to_reference(self, x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Where sources at science pixels `x, y` stand in the reference."""
        m, b = self.matrix, self.shift
        return m[0, 0] * x + m[0, 1] * y + b[0], m[1, 0] * x + m[1, 1] * y + b[1]

    def reference_wcs(self, science: WCS, error_px: tuple[float, float] = (0.0, 0.0)) -> WCS:
        """The TAN WCS of the reference: same tangent point, so that pixel to pixel is exactly affine."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = list(science.wcs.ctype)
        wcs.wcs.cunit = list(science.wcs.cunit)
        wcs.wcs.crval = science.wcs.crval
        wcs.wcs.cd = science.wcs.cd @ np.linalg.inv(self.matrix)
        wcs.wcs.crpix = self.matrix @ (science.wcs.crpix - 1) + self.shift + 1 + np.array(error_px)
        wcs.wcs.set()
        return wcs


@dataclass(frozen=True, slots=True, eq=False)
class Bends:
    """A smooth field of small displacements in science pixels, as a registration leaves over."""

    amplitude_px: float
    waves: Float64Array  # (2 axes, n, [kx, ky, phase])

    def bent(self, x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Places after the displacement."""
        if self.amplitude_px == 0:
            return x, y
        moves = [
            self.amplitude_px
            * np.sqrt(2 / len(axis))
            * sum(np.sin(kx * x + ky * y + phase) for kx, ky, phase in axis)
            for axis in self.waves
        ]
        return x + moves[0], y + moves[1]


def shift_field(rng: np.random.Generator, shape: tuple[int, int], amplitude_px: float) -> Bends:
    """Three waves per axis, up to two periods across the frame; `amplitude_px` is the rms per axis."""
    waves = np.empty((2, 3, 3))
    waves[..., 0] = rng.uniform(-2, 2, (2, 3)) * 2 * np.pi / shape[1]
    waves[..., 1] = rng.uniform(-2, 2, (2, 3)) * 2 * np.pi / shape[0]
    waves[..., 2] = rng.uniform(0, 2 * np.pi, (2, 3))
    return Bends(amplitude_px, waves)


def tan_wcs(shape: tuple[int, int], ra_deg: float, dec_deg: float, pixel_scale_arcsec: float) -> WCS:
    """A gnomonic WCS, north up and east left, tangent at the centre of `shape`."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra_deg, dec_deg]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    step = pixel_scale_arcsec / 3600
    wcs.wcs.cd = np.array([[-step, 0.0], [0.0, step]])
    wcs.wcs.set()
    return wcs
