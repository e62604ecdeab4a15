"""Pairs whose every setting is drawn at random, and what is delivered of them: frames that nobody chose.

Owns the ranges that settings are drawn from, wider than any survey's, and the table; never tunes anything.
Everything goes the way of `astrid run`: files of integers are read, calibrated and differenced. A pair that
is refused says why; that is no failure where the frames cannot be subtracted. With `--galsim` the sky is not
ours (`galsim_sky.py`).

    python benchmarks/science/any_frame.py 13001 13002 13003
    python benchmarks/science/any_frame.py 13001 13002 13003 --json > mine.jsonl
    python benchmarks/science/any_frame.py 61 62 63 --galsim
"""

import argparse
import json
import multiprocessing
from dataclasses import dataclass
from typing import Any

import numpy as np
from false_positives import from_files, score_pair

from astrid_workers.differencing.pair import run_pair
from astrid_workers.errors import AstridError
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky import make_sky
from astrid_workers.storage.fits import read_frame

#: Drawn evenly between these.
EVEN: dict[str, tuple[float, float]] = {
    "moffat_beta": (2.3, 5.0),
    "ellipticity_science": (0.0, 0.25),
    "ellipticity_reference": (0.0, 0.15),
    "psf_gradient": (0.0, 0.25),
    "transparency": (0.3, 1.2),
    "read_noise_e": (2.0, 15.0),
    "shift_field_px": (0.0, 0.15),
}
#: Drawn evenly in the logarithm.
BY_FACTORS: dict[str, tuple[float, float]] = {
    "fwhm_science_px": (1.5, 7.0),
    "reference_depth": (0.4, 8.0),
    "sky_e": (20.0, 5000.0),
}
#: The same, per Mpix.
COUNTS: dict[str, tuple[float, float]] = {"n_stars": (40.0, 8000.0), "n_galaxies": (50.0, 1500.0)}
#: Whole numbers from 0 to less than these, per frame.
BLEMISHES: dict[str, int] = {"n_saturated": 20, "n_cosmic_rays": 200, "n_bad_columns": 4}
#: Of the reference's FWHM over the science frame's, and what it may be, pixels.
FWHM_RATIO, FWHM_REFERENCE_PX = (0.5, 2.0), (1.4, 9.0)
#: Share of pairs that are turned by little, and by how much; the turns of the others, degrees.
LITTLE_TURNED, TURN_DEG, TURNS_DEG = 0.8, 0.4, (90.0, 180.0, -90.0, 17.0)
#: Share of pairs of nearly one scale, and the scales of these and of the others.
LIKE_SCALED, SCALES, OTHER_SCALES = 0.7, (0.97, 1.03), (0.7, 1.4)
#: Shift of the reference at most, and how wrong its header is, pixels.
MOST_SHIFT_PX, WCS_ERROR_PX = 40.0, 1.5
#: Faintest and brightest star, electrons: each drawn by factors between these.
FAINTEST_E, BRIGHTEST_E = (5e2, 3e3), (5e4, 4e5)
#: Share of the sky by which it may rise across the frame.
MOST_GRADIENT = 0.3


def draw_settings(seed: int, size: int) -> dict[str, Any]:
    """Arguments of `make_sky` for a square pair of `size` pixels; the same for the same seed."""
    rng = np.random.default_rng([seed, 77])
    mpix = size**2 / 1e6

    def by_factors(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    drawn: dict[str, Any] = {name: float(rng.uniform(*ends)) for name, ends in EVEN.items()}
    drawn |= {name: by_factors(*ends) for name, ends in BY_FACTORS.items()}
    drawn |= {name: round(by_factors(*ends) * mpix) for name, ends in COUNTS.items()}
    drawn |= {name: int(rng.integers(most)) for name, most in BLEMISHES.items()}
    reference_px = np.clip(drawn["fwhm_science_px"] * by_factors(*FWHM_RATIO), *FWHM_REFERENCE_PX)
    is_turned, is_scaled = rng.random() > LITTLE_TURNED, rng.random() > LIKE_SCALED
    return drawn | {
        "seed": seed,
        "shape": (size, size),
        "fwhm_reference_px": float(reference_px),
        "star_flux_e": (by_factors(*FAINTEST_E), by_factors(*BRIGHTEST_E)),
        "galaxy_sigma_px": (0.8, float(rng.uniform(1.5, 5.0))),
        "n_transients": round(150 * mpix),
        "transient_snr": (2.0, 40.0),
        "negative_fraction": 0.3,
        "host_fraction": 0.5,
        "offset_px": tuple(rng.uniform(-MOST_SHIFT_PX, MOST_SHIFT_PX, 2)),
        "rotation_deg": float(rng.choice(TURNS_DEG) if is_turned else rng.normal(0, TURN_DEG)),
        "scale": by_factors(*OTHER_SCALES) if is_scaled else float(rng.uniform(*SCALES)),
        "wcs_error_px": tuple(rng.normal(0, WCS_ERROR_PX, 2)),
        "gradient_e": drawn["sky_e"] * float(rng.uniform(0, MOST_GRADIENT)),
    }


@dataclass(frozen=True, slots=True)
class Job:
    """One pair."""

    seed: int
    size: int
    #: Drawn by GalSim.
    by_galsim: bool = False


def draw(job: Job) -> tuple[dict[str, Any], Any, tuple[Any, ...]]:
    """Settings, the sky's truth, and both frames as they are read from an observer's files."""
    if job.by_galsim:
        import galsim_sky

        settings = galsim_sky.draw_settings(job.seed, job.size)
        sky = galsim_sky.draw_pair(settings)
        names = ("science", "reference")
        frames = tuple(read_frame(data, name=name) for data, name in zip(sky.files, names, strict=True))
        return settings, sky, frames
    settings = draw_settings(job.seed, job.size)
    ours = make_sky(**settings)
    return settings, ours, from_files(ours)


def run_job(job: Job) -> dict[str, Any]:
    """The pair's settings with numbers of what is delivered, or the sentence that it was refused with."""
    settings, sky, frames = draw(job)
    try:
        science, reference = (calibrate(frame).frame for frame in frames)
        pair = run_pair(science, reference)
    except AstridError as error:
        return {"settings": settings, "refused": str(error)}
    return {"settings": settings, "ran": pair.difference.algorithm} | score_pair(sky, pair)


COLUMNS = (
    ("false_clean", "false/Mpix"), ("complete_above_10", "complete"), ("s50_blank", "S50 blank"),
    ("s50_host", "S50 host"), ("flux_ratio", "flux"), ("flux_pull_scatter", "pull"),
    ("position_pull", "positions"), ("score_median", "median"), ("score_scatter", "scatter"),
    ("score_tails", "tails"),
)  # fmt: skip
#: Settings that a row begins with.
SHOWN = ("fwhm_science_px", "fwhm_reference_px", "n_stars", "n_galaxies", "sky_e", "rotation_deg", "scale")
SHOWN_BY_GALSIM = ("n_stars", "n_galaxies", "sky_e", "depth", "displaced_px", "colour_rms", "scale")


def main() -> None:
    """Print a row per pair, and how the numbers are spread over all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", type=int, nargs="+", help="seeds that nothing was tuned on")
    parser.add_argument("--size", type=int, default=1024, help="side of a frame, pixels")
    parser.add_argument(
        "--galsim", action="store_true", help="of a sky that GalSim draws; needs the extra dev"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of a table")
    options = parser.parse_args()
    rows = []
    shown = SHOWN_BY_GALSIM if options.galsim else SHOWN
    if not options.json:
        print(" ".join(f"{title[:9]:>9}" for title in ("seed", *shown, *(title for _, title in COLUMNS))))
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for seed in options.seeds:
            row = pool.apply(run_job, (Job(seed, options.size, options.galsim),))
            rows.append(row)
            print(json.dumps({"seed": seed, **row}) if options.json else _line(seed, shown, row), flush=True)
    if not options.json:
        _print_spread(rows)


def _line(seed: int, shown: tuple[str, ...], row: dict[str, Any]) -> str:
    cells = [seed, *(row["settings"][name] for name in shown)]
    if "refused" in row:
        return f"{' '.join(_cell(value) for value in cells)} refused: {row['refused']}"
    return " ".join(_cell(value) for value in (*cells, *(row[name] for name, _ in COLUMNS)))


def _print_spread(rows: list[dict[str, Any]]) -> None:
    """Median, and the worst tenth's end on either side."""
    done = [row for row in rows if "refused" not in row]
    print(f"\n{len(done)} of {len(rows)} subtracted; 10th, 50th and 90th percentile and extremes of these:")
    for name, title in COLUMNS:
        values = [row[name] for row in done if row[name] is not None]
        if values:
            print(f"{title:>12} " + " ".join(_cell(v) for v in np.percentile(values, (0, 10, 50, 90, 100))))


def _cell(value: object) -> str:
    return f"{value:>9.3f}" if isinstance(value, float) else f"{value if value is not None else '-':>9}"


if __name__ == "__main__":
    main()
