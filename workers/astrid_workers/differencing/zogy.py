"""ZOGY: each frame is convolved with the other's PSF, so neither is ever deconvolved.

Owns the transfer functions of Zackay, Ofek & Gal-Yam 2016 (ApJ 830, 27), with the measured match of gain,
shift and width in them. Never touches a pixel; `tiles.py` does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.imaging.photometric_match import PhotometricMatch
from astrid_workers.imaging.psf import Psf
from astrid_workers.imaging.transfer import psf_hat


@dataclass(frozen=True, slots=True, eq=False)
class Zogy:
    """a_n = P_r and a_r = κ P_n, where κ takes the reference to the science frame's flux and place."""

    psf_science: Psf
    psf_reference: Psf
    match: PhotometricMatch

    @property
    def varies(self) -> bool:
        """Whether PSFs or match depend on the position."""
        return max(self.psf_science.order, self.psf_reference.order, self.match.order) > 0

    def transfer(
        self, x: float, y: float, size: tuple[int, int]
    ) -> tuple[NDArray[np.complexfloating], NDArray[np.complexfloating]]:
        """`(a_n, a_r)` at a position, rfft2 coefficients on a `(ny, nx)` grid, complex."""
        a_n = psf_hat(self.psf_reference, x, y, size)
        a_r = self.match.transfer(x, y, size) * psf_hat(self.psf_science, x, y, size)
        return a_n, a_r

    def moves_on_grid(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Relative gain, shift x and shift y in `a_r` where columns `x` and rows `y` cross: `(3, ny, nx)`."""
        return self.match.moves_on_grid(x, y)
