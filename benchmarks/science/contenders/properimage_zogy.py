"""ProperImage's `subtract`: ZOGY with a PSF of its own."""

from typing import Any

import numpy as np
from preparation import cosmic_rays, filled, reference_on_science_grid
from properimage.operations import subtract as proper_subtract
from properimage.single_image import SingleImageGaussPSF

from contract import Pair, Side, compete, versions


def subtract(pair: Pair, setting: str) -> dict[str, Any]:
    """`default`: gain and shift fitted, Gaussian PSF.

    `best`: cosmic rays masked, gain fitted iteratively, no shift.

    (Its estimated, non-Gaussian PSF gave an unusable score where it was tried.)
    """
    science, mask = pair.science.pixels, pair.science.mask.copy()
    reference, reference_mask = pair.reference, pair.reference.mask.copy()
    if setting == "best":
        mask |= cosmic_rays(science, mask, pair.science.header)
        reference_mask |= cosmic_rays(reference.pixels, reference_mask, reference.header)
    moved, moved_mask = reference_on_science_grid(
        Pair(pair.science, Side(reference.pixels, reference_mask, reference.header, reference.path))
    )
    new = SingleImageGaussPSF(filled(science, mask), mask=mask, gain=1.0)
    old = SingleImageGaussPSF(filled(moved, moved_mask), mask=moved_mask, gain=1.0)
    extra = {"beta": True, "shift": False, "iterative": True} if setting == "best" else {}
    difference, _, score, _ = proper_subtract(ref=old, new=new, align=False, fitted_psf=True, **extra)
    return {
        "score": score,
        "difference": np.asarray(difference).real,
        "valid": ~(mask | moved_mask) & np.isfinite(score),
        "meta": {"versions": versions("properimage", "numpy", "astroscrappy")},
    }


if __name__ == "__main__":
    compete(subtract, ("default", "best"))
