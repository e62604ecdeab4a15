"""SFFT's sparse flavour on its numpy backend: kernel with delta basis solved in Fourier space."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from preparation import (
    background,
    cosmic_rays,
    filled,
    psf_model,
    psf_stamp,
    reference_on_science_grid,
    variance,
)

from contract import Pair, Side, compete, versions

if not hasattr(np, "in1d"):  # gone since NumPy 2.4; SFFT 1.7.3 still calls it
    np.in1d = np.isin  # noqa: NPY201
from sfft.EasySparsePacket import Easy_SparsePacket


def subtract(pair: Pair, setting: str) -> dict[str, Any]:
    """`default`: sky-subtracted frames, all else as it comes: order 2, half-width twice the FWHM, one ratio.

    `best`: cosmic rays masked and filled, the flux ratio free to vary.
    """
    science, mask = pair.science.pixels, pair.science.mask.copy()
    reference, reference_mask = pair.reference, pair.reference.mask.copy()
    if setting == "best":
        mask |= cosmic_rays(science, mask, pair.science.header)
        reference_mask |= cosmic_rays(reference.pixels, reference_mask, reference.header)
    moved, moved_mask = reference_on_science_grid(
        Pair(pair.science, Side(reference.pixels, reference_mask, reference.header, reference.path))
    )
    sky, rms = background(science, mask)
    moved_sky, moved_rms = background(moved, moved_mask)
    psf, _ = psf_model(science, mask)
    moved_psf, _ = psf_model(moved, moved_mask)
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        names = [str(Path(place) / name) for name in ("reference.fits", "science.fits")]
        for name, pixels, bad, header in (
            (names[0], moved - moved_sky, moved_mask, reference.header),
            (names[1], science - sky, mask, pair.science.header),
        ):
            cards = fits.Header({"GAIN": 1.0, "ESATUR": 0.9 * float(header.get("SATURATE", 1e9))})
            fits.writeto(name, filled(pixels, bad).astype(np.float32), cards)
        solved = Easy_SparsePacket.ESP(
            *names, ConstPhotRatio=setting == "default", BACKEND_4SUBTRACT="Numpy",
            NUM_CPU_THREADS_4SUBTRACT=1, VERBOSE_LEVEL=0,
        )  # fmt: skip
    difference = np.asarray(solved[0]).T  # SFFT keeps its arrays [x, y]
    # the sharper frame was convolved: the difference has the broader PSF, and that frame's flux scale
    science_is_broader = float(psf["fwhm"]) >= float(moved_psf["fwhm"])
    noise, moved_noise = variance(science, sky, rms), variance(moved, moved_sky, moved_rms)
    bright = (moved - moved_sky > 20 * moved_rms) & ~mask & ~moved_mask
    ratio = (
        float(np.sum((science - sky)[bright]) / np.sum((moved - moved_sky)[bright])) if bright.any() else 1.0
    )
    own = noise + ratio**2 * moved_noise
    return {
        "difference": difference if science_is_broader else difference * ratio,
        "psf": psf_stamp(psf if science_is_broader else moved_psf, science.shape),
        "variance": own,
        "valid": ~(mask | moved_mask) & np.isfinite(difference),
        "meta": {"versions": versions("sfft", "numpy", "numba", "astroscrappy"), "ratio": ratio},
    }


if __name__ == "__main__":
    compete(subtract, ("default", "best"))
