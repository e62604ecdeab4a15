"""The simulated pairs of the science benchmarks: what each kind holds and how it is spoilt.

Owns the settings; `astrid_workers.sky` draws them. Nothing here is tuned on a result.
"""

from typing import Any

from astrid_workers.sky import Sky, make_sky

#: What a pair holds per megapixel, and how it is spoilt.
REALISTIC: dict[str, Any] = {
    "fwhm_science_px": 3.6,
    "fwhm_reference_px": 2.8,
    "ellipticity_science": 0.06,
    "ellipticity_reference": 0.03,
    "psf_gradient": 0.1,
    "transparency": 0.85,
    "shift_field_px": 0.06,
    "offset_px": (3.4, -2.7),
    "rotation_deg": 0.05,
    "negative_fraction": 0.2,
    "host_fraction": 0.5,
    "transient_snr": (2.0, 40.0),
    "gradient_e": 40.0,
}
PER_MPIX = {
    "n_stars": 860,
    "n_galaxies": 480,
    "n_transients": 150,
    "n_saturated": 6,
    "n_cosmic_rays": 60,
    "n_bad_columns": 1,
}
#: Changes to the realistic pair, by kind.
HARD: dict[str, dict[str, Any]] = {
    "realistic": {},
    "clean": {
        "psf_gradient": 0.0, "shift_field_px": 0.0, "offset_px": (0.0, 0.0), "rotation_deg": 0.0,
        "gradient_e": 0.0, "n_saturated": 0, "n_cosmic_rays": 0, "n_bad_columns": 0,
    },
    "few-stars": {"n_stars": 26, "n_galaxies": 120, "n_saturated": 1},
    "undersampled": {"fwhm_science_px": 1.8, "fwhm_reference_px": 1.6},
    "sharper-science": {"fwhm_science_px": 2.6, "fwhm_reference_px": 3.6},
    "misaligned": {"offset_px": (30.0, -21.0), "rotation_deg": 1.5, "scale": 1.005},
    "overlap-60": {"offset_share": (0.4, 0.0)},
    "gradient": {"gradient_e": 400.0},
    "crowded": {"n_stars": 8000, "star_flux_e": (5e2, 2e5)},
    "no-wcs": {"with_wcs": False},
    "empty": {"n_transients": 0},
}  # fmt: skip


def pair_settings(kind: str, seed: int, size: int) -> dict[str, Any]:
    """Arguments of `make_sky` for a square pair of `size` pixels.

    Counts are per Mpix, but for those that a kind names; its `n_stars` above 100 is per Mpix too.
    """
    mpix = size**2 / 1e6
    counts = {name: round(n * mpix) for name, n in PER_MPIX.items()}
    changes = dict(HARD[kind])
    if changes.get("n_stars", 0) > 100:
        changes["n_stars"] = round(changes["n_stars"] * mpix)
    if "offset_share" in changes:
        across, along = changes.pop("offset_share")
        changes["offset_px"] = (across * size, along * size)
    return {"seed": seed, "shape": (size, size)} | counts | REALISTIC | changes


def make_pair(kind: str, seed: int, size: int) -> Sky:
    """Draw one pair."""
    return make_sky(**pair_settings(kind, seed, size))
