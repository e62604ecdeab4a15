"""Astrid itself: read, calibrate, align, subtract and extract as `astrid run` does."""

from pathlib import Path
from typing import Any

import numpy as np

from astrid_workers.differencing.pair import run_pair
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.storage.fits import read_frame
from contract import Pair, compete, versions


def subtract(pair: Pair, setting: str) -> dict[str, Any]:
    """`setting` is the algorithm; everything else stays at its default."""
    frames = []
    for side in (pair.science, pair.reference):
        noise = side.path.with_name(f"{side.path.stem}_noise.fits")
        frame = read_frame(
            side.path.read_bytes(),
            name=side.path.stem,
            mask=side.path.with_name(f"{side.path.stem}_mask.fits").read_bytes(),
            noise=noise.read_bytes() if Path(noise).exists() else None,
        )
        frames.append(calibrate(frame).frame)
    made = run_pair(*frames, DifferenceOptions(algorithm=setting, max_residual_power=np.inf))  # type: ignore[arg-type]
    difference, checked = made.difference, made.validation
    score = difference.unmasked_score
    return {
        "score": score,
        "valid": np.isfinite(difference.score),
        "flux": score * difference.flux_error,
        "flux_error": difference.flux_error,
        "difference": difference.difference,
        "meta": {
            "versions": versions("numpy", "scipy"),
            "ran": difference.algorithm,
            "why": difference.why,
            "noise_scale": difference.noise_scale,
            "sky": {"median": checked.median, "scatter": checked.std, "tails": checked.tail_ratio},
            "candidates": [
                [c.x, c.y, c.score, c.flux, c.flux_err, c.x_err, c.y_err, list(c.flags)]
                for c in made.candidates.items
            ],
        },
    }


if __name__ == "__main__":
    compete(subtract, ("auto", "zogy", "classic", "none"))
