"""Pairs with diffuse light of their own, as in nebulae and spiral arms, and what is delivered of them.

Owns the drawing of that light: smooth noise of one scale, cut at 0, the same in both frames, with the photon
noise of its own in each. Everything goes the way of `astrid run`: files are read, calibrated and differenced.

    python benchmarks/science/structured_sky.py 73001 73002 73003
    python benchmarks/science/structured_sky.py 73001 --json > mine.jsonl
"""

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
from any_frame import COLUMNS
from false_positives import from_files, score_pair
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from astrid_workers.differencing.pair import run_pair
from astrid_workers.errors import AstridError
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky import Sky, make_sky

SIZE_PX, SKY_E = 1024, 400.0
SETTINGS: dict[str, Any] = {
    "shape": (SIZE_PX, SIZE_PX), "sky_e": SKY_E, "n_stars": 880, "n_galaxies": 400, "n_transients": 100,
    "n_saturated": 1, "n_cosmic_rays": 40, "transient_snr": (8.0, 60.0), "fwhm_science_px": 3.4,
    "fwhm_reference_px": 2.8, "ellipticity_science": 0.05, "psf_gradient": 0.05, "transparency": 0.85,
    "offset_px": (3.4, -2.7), "negative_fraction": 0.2, "reference_depth": 4.0,
}  # fmt: skip
#: Scale of the light in pixels, and its scatter in electrons, where the sky's noise is 21.
CASES = ((20.0, 0.0), (20.0, 30.0), (20.0, 100.0), (40.0, 100.0), (60.0, 200.0), (80.0, 300.0))
#: Drawn beyond the frame on each side, for the reference's shift.
MARGIN_PX = 20


def main() -> None:
    """Print a row for each case and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", type=int, nargs="+", help="seeds that nothing was tuned on")
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of a table")
    options = parser.parse_args()
    if not options.json:
        titles = ("seed", "scale_px", "light_e", "false all", *(title for _, title in COLUMNS))
        print(" ".join(f"{title[:9]:>9}" for title in titles))
    for scale_px, light_e in CASES:
        for seed in options.seeds:
            row = {
                "seed": seed,
                "scale_px": scale_px,
                "light_e": light_e,
                **delivered(seed, scale_px, light_e),
            }
            print(json.dumps(row) if options.json else _line(row), flush=True)


def delivered(seed: int, scale_px: float, light_e: float) -> dict[str, Any]:
    """Numbers of what is delivered, or the sentence that the pair was refused with."""
    sky = with_light(make_sky(seed=seed, **SETTINGS), scale_px, light_e, seed)
    try:
        science, reference = (calibrate(frame).frame for frame in from_files(sky))
        return score_pair(sky, run_pair(science, reference))
    except AstridError as error:
        return {"refused": str(error)}


def with_light(sky: Sky, scale_px: float, light_e: float, seed: int) -> Sky:
    """`sky` with diffuse light in both frames, on the photometric scale of each."""
    rng = np.random.default_rng([seed, 5])
    side = SIZE_PX + 2 * MARGIN_PX
    light = gaussian_filter(rng.normal(0, 1, (side, side)), scale_px, mode="wrap")
    light = np.clip(light / light.std(), 0, None) * light_e
    dx, dy = SETTINGS["offset_px"]
    moved = np.clip(shift(light, (dy, dx), order=3), 0, None) / sky.flux_scale
    inner = slice(MARGIN_PX, -MARGIN_PX)

    def lit(frame: Any, more: NDArray[np.float64]) -> Any:
        return replace(frame, science=frame.science + rng.normal(more, np.sqrt(more)).astype(np.float32))

    return replace(
        sky, science=lit(sky.science, light[inner, inner]), reference=lit(sky.reference, moved[inner, inner])
    )


def _line(row: dict[str, Any]) -> str:
    cells = f"{row['seed']:>9} {row['scale_px']:>9g} {row['light_e']:>9g}"
    if "refused" in row:
        return f"{cells} refused: {row['refused']}"
    numbers = [row["false"], *(row[name] for name, _ in COLUMNS)]
    return f"{cells} " + " ".join("        -" if value is None else f"{value:>9.3f}" for value in numbers)


if __name__ == "__main__":
    main()
