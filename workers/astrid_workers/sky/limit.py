"""The significance that no method can beat.

Owns one formula: the matched filter on two background-limited frames (Zackay, Ofek & Gal-Yam 2016).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.sky.light import PsfModel

Float64Array = NDArray[np.float64]


def snr_limit(
    flux_e: float | Float64Array,
    psf_science: PsfModel,
    psf_reference: PsfModel,
    variance_science: float | Float64Array,
    variance_reference: float | Float64Array,
    flux_scale: float,
) -> Float64Array:
    """S/N of a source of `flux_e` science electrons, by frequency.

    S² = F² · mean over frequency of |Pn|²|Pr|² / (β² σr² |Pn|² + σn² |Pr|²), with β = `flux_scale`, variances
    in electrons² per pixel of each frame's own scale. All arguments but the profiles broadcast. Float64.
    """
    size = 2 * int(np.ceil(8 * max(psf_science.fwhm_px, psf_reference.fwhm_px))) + 1
    pn, pr = (np.abs(fft.rfft2(psf.stamp(size))) ** 2 for psf in (psf_science, psf_reference))
    multiplicity = np.full(pn.shape[1], 2.0)  # a half plane of frequencies stands for the whole
    multiplicity[0] = 1.0
    flux, vn, vr = np.broadcast_arrays(
        np.asarray(flux_e, float), np.asarray(variance_science, float), np.asarray(variance_reference, float)
    )
    floor = 1e-12
    snr = np.empty(flux.shape)
    for index in np.ndindex(flux.shape):
        power = pn * pr / np.maximum(flux_scale**2 * vr[index] * pn + vn[index] * pr, floor)
        snr[index] = flux[index] * np.sqrt((power * multiplicity).sum() / size**2)
    return snr
