"""PyZOGY's `run_subtraction`, with PSFs by PSFEx."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from preparation import cosmic_rays, filled, psf_model, psf_stamp, reference_on_science_grid
from PyZOGY.subtract import run_subtraction

from contract import Pair, Side, compete, versions


def subtract(pair: Pair, setting: str) -> dict[str, Any]:
    """`default`: frames, PSFs and masks.

    `best`: cosmic rays masked, noise in 4 × 4 parts, gain fitted by pixels.
    """
    science, mask = pair.science.pixels, pair.science.mask.copy()
    reference, reference_mask = pair.reference, pair.reference.mask.copy()
    if setting == "best":
        mask |= cosmic_rays(science, mask, pair.science.header)
        reference_mask |= cosmic_rays(reference.pixels, reference_mask, reference.header)
    moved, moved_mask = reference_on_science_grid(
        Pair(pair.science, Side(reference.pixels, reference_mask, reference.header, reference.path))
    )
    psfs = [psf_stamp(psf_model(*side)[0], science.shape) for side in ((science, mask), (moved, moved_mask))]
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        at = Path(place)
        for name, array in (
            ("n", filled(science, mask)), ("r", filled(moved, moved_mask)), ("pn", psfs[0]), ("pr", psfs[1]),
            ("mn", mask), ("mr", moved_mask),
        ):  # fmt: skip
            fits.writeto(at / f"{name}.fits", np.asarray(array, np.float32))
        files = {name: str(at / f"{name}.fits") for name in ("n", "r", "pn", "pr", "mn", "mr")}
        extra = {"n_stamps": 4, "use_pixels": True} if setting == "best" else {}
        run_subtraction(
            files["n"], files["r"], files["pn"], files["pr"], output=str(at / "d.fits"),
            science_mask=files["mn"], reference_mask=files["mr"], normalization="science",
            matched_filter=str(at / "s.fits"), photometry=False, **extra,
        )  # fmt: skip
        score, difference = fits.getdata(at / "s.fits"), fits.getdata(at / "d.fits")
    return {
        "score": score,
        "difference": difference,
        "valid": ~(mask | moved_mask) & np.isfinite(score),
        "meta": {"versions": versions("PyZOGY", "numpy", "astroscrappy")},
    }


if __name__ == "__main__":
    compete(subtract, ("default", "best"))
