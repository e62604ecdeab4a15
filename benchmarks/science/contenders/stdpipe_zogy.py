"""STDPipe's `run_zogy`: Python, PSFs by PSFEx, its own score with source and astrometric noise."""

from typing import Any

import numpy as np
from preparation import (
    cosmic_rays,
    flux_ratio,
    psf_model,
    reference_on_science_grid,
    registration_scatter,
)
from stdpipe.subtraction import run_zogy

from contract import Pair, compete, versions


def subtract(pair: Pair, setting: str) -> dict[str, Any]:
    """`default`: masks and gains handed over, all else as it comes: one PSF, 0.25 px of astrometric noise.

    `best`: cosmic rays masked by astroscrappy on both frames, PSFs of order 2, the astrometric noise measured
    from the objects that both frames share.
    """
    science, mask = pair.science.pixels, pair.science.mask.copy()
    reference, reference_mask = pair.reference, pair.reference.mask.copy()
    if setting == "best":
        mask |= cosmic_rays(science, mask, pair.science.header)
        reference_mask |= cosmic_rays(reference.pixels, reference_mask, reference.header)
    moved, moved_mask = reference_on_science_grid(
        Pair(
            pair.science, type(reference)(reference.pixels, reference_mask, reference.header, reference.path)
        )
    )
    extra: dict[str, Any] = {}
    said = {}
    if setting == "best":
        psf, objects = psf_model(science, mask)
        template_psf, template_objects = psf_model(moved, moved_mask)
        dx, dy = registration_scatter(objects, template_objects)
        scale = flux_ratio(template_objects, objects)
        extra = {
            "image_psf": psf, "template_psf": template_psf, "image_obj": objects,
            "template_obj": template_objects, "dx": dx, "dy": dy, "scale": scale,
        }  # fmt: skip
        said = {"dx": dx, "dy": dy}
    difference, score, flux, flux_error = run_zogy(
        science, moved, mask=mask, template_mask=moved_mask, image_gain=1.0, template_gain=1.0,
        get_Fpsf=True, nthreads=1, **extra,
    )  # fmt: skip
    return {
        "score": score,
        "valid": ~(mask | moved_mask) & np.isfinite(score),
        "flux": flux,
        "flux_error": flux_error,
        "difference": difference,
        "meta": {"versions": versions("stdpipe", "numpy", "astroscrappy"), **said},
    }


if __name__ == "__main__":
    compete(subtract, ("default", "best"))
