"""HOTPANTS by its path (`ASTRID_HOTPANTS`): Alard–Lupton with Gaussian bases."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from preparation import background, cosmic_rays, filled, psf_model, psf_stamp, reference_on_science_grid

from contract import Pair, Side, compete


def subtract(pair: Pair, setting: str) -> dict[str, Any]:
    """`default`: limits and gains given, all else as it comes.

    `best`: cosmic rays masked, Gaussians as its README advises (0.5, 1 and 2 times the width that matches the
    seeing), kernel and stamps of 2.5 and 6 FWHM, order 2.
    """
    science, mask = pair.science.pixels, pair.science.mask.copy()
    reference, reference_mask = pair.reference, pair.reference.mask.copy()
    if setting == "best":
        mask |= cosmic_rays(science, mask, pair.science.header)
        reference_mask |= cosmic_rays(reference.pixels, reference_mask, reference.header)
    moved, moved_mask = reference_on_science_grid(
        Pair(pair.science, Side(reference.pixels, reference_mask, reference.header, reference.path))
    )
    psf, _ = psf_model(science, mask)
    template_psf, _ = psf_model(moved, moved_mask)
    wide, sharp = float(psf["fwhm"]), float(template_psf["fwhm"])
    extra: list[str] = []
    if setting == "best":
        sigma = np.sqrt(abs(wide**2 - sharp**2)) / 2.3548
        extra = [
            "-r",
            f"{2.5 * max(wide, sharp):.1f}",
            "-rss",
            f"{6 * max(wide, sharp):.1f}",
            "-ko",
            "2",
            "-bgo",
            "1",
        ]
        if sigma > 0.3:
            extra += ["-ng", *f"3 6 {0.5 * sigma:.2f} 4 {sigma:.2f} 2 {2 * sigma:.2f}".split()]
    with tempfile.TemporaryDirectory() as place:
        at = Path(place)
        limits: list[str] = []
        for letter, pixels, bad, side in (
            ("i", science, mask, pair.science),
            ("t", moved, moved_mask, reference),
        ):
            fits.writeto(at / f"{letter}.fits", filled(pixels, bad).astype(np.float32))
            fits.writeto(at / f"{letter}m.fits", bad.astype(np.int16))
            level, rms = background(pixels, bad)
            limits += [
                f"-{letter}u",
                str(side.number("SATURATE")),
                f"-{letter}l",
                f"{np.median(level) - 10 * rms:.1f}",
            ]
            limits += [f"-{letter}g", "1", f"-{letter}mi", str(at / f"{letter}m.fits")]
        subprocess.run(
            [
                os.environ["ASTRID_HOTPANTS"], "-inim", str(at / "i.fits"), "-tmplim", str(at / "t.fits"),
                "-outim", str(at / "d.fits"), "-oni", str(at / "e.fits"), "-n", "i", *limits, *extra,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        difference, noise = fits.getdata(at / "d.fits"), fits.getdata(at / "e.fits")
    return {
        "difference": difference,
        "psf": psf_stamp(psf if wide >= sharp else template_psf, science.shape),
        "variance": np.asarray(noise, np.float64) ** 2,
        "valid": ~(mask | moved_mask) & np.isfinite(difference) & (difference > -1e29),
        "meta": {"versions": {"hotpants": os.environ["ASTRID_HOTPANTS"]}},
    }


if __name__ == "__main__":
    compete(subtract, ("default", "best"))
