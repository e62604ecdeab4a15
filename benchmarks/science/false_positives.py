"""False candidates, depth, calibration and cost of every algorithm on simulated pairs with truth.

Owns the scoring of delivered candidate lists; never tunes anything. Seeds come from the command line: those
below 1000 were used while the code was written, so a result worth quoting names others.

    python benchmarks/science/false_positives.py 2001 2002 --size 2048
    python benchmarks/science/false_positives.py 2001 2002 --files    # through integer FITS files
"""

import argparse
import json
import multiprocessing
import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from pairs import HARD, make_pair

#: Candidates nearer to the edge than this are not counted, nor are injections.
BORDER_PX = 40
MATCH_PX = 2.5


@dataclass(frozen=True, slots=True)
class Job:
    """One pair and one algorithm."""

    seed: int
    size: int
    kind: str
    algorithm: str
    #: Frames go through an observer's files: integers, without a noise map, variance and sky measured.
    files: bool = False


def run_job(job: Job) -> dict[str, Any]:
    """Make the pair, run it as `astrid run` would, score the list."""
    from astrid_workers.differencing.pair import run_pair
    from astrid_workers.differencing.products import DifferenceOptions
    from astrid_workers.errors import AstridError
    from astrid_workers.preprocessing.calibrate import calibrate

    sky = make_pair(job.kind, job.seed, job.size)
    base_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    cpu = time.process_time()
    try:
        frames = from_files(sky) if job.files else (sky.science, sky.reference)
        science, reference = (calibrate(frame).frame for frame in frames)
        options = DifferenceOptions(algorithm=job.algorithm, max_residual_power=np.inf)  # type: ignore[arg-type]
        pair = run_pair(science, reference, options)
    except AstridError as error:
        return {"failed": str(error)}
    cpu = time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return score_pair(sky, pair) | {
        "cpu_s_per_mpix": cpu / (job.size**2 / 1e6),
        "peak_rss_mb": peak_mb,
        "rss_of_simulation_mb": base_mb,
        "chosen": pair.difference.algorithm,
    }


def from_files(sky: Any) -> tuple[Any, ...]:
    """Science and reference as an observer has them: read from FITS files of integers."""
    from astrid_workers.sky import sky_to_fits
    from astrid_workers.storage.fits import read_frame

    names = ("science", "reference")
    return tuple(read_frame(data, name=name) for data, name in zip(sky_to_fits(sky), names, strict=True))


def score_pair(sky: Any, pair: Any) -> dict[str, Any]:
    """Numbers of one delivered list against the truth."""
    truth = sky.truth
    shape = pair.difference.shape
    inside = _inside(truth["x"], truth["y"], shape)
    measured = np.isfinite(pair.difference.score[_pixel(truth["y"], shape[0]), _pixel(truth["x"], shape[1])])
    found = np.full(len(truth), -1)
    false = []
    for number, c in enumerate(pair.candidates.items):
        near = np.flatnonzero(
            (np.hypot(truth["x"] - c.x, truth["y"] - c.y) < MATCH_PX) & ((truth["sign"] > 0) == c.is_positive)
        )
        if near.size:
            found[near[0]] = number
        elif _inside(np.array(c.x), np.array(c.y), shape):
            false.append((c, _cause(sky, c)))
    usable = inside & measured
    hit = found >= 0
    items = [pair.candidates.items[i] for i in found[hit]]
    ratio = np.array([abs(c.flux) for c in items]) / truth["flux_e"][hit]
    pull = (np.array([abs(c.flux) for c in items]) - truth["flux_e"][hit]) / np.array(
        [c.flux_err for c in items]
    )
    offset = np.array([(c.x - t["x"], c.y - t["y"]) for c, t in zip(items, truth[hit], strict=True)]).reshape(
        -1, 2
    )
    errors = np.array([(c.x_err, c.y_err) for c in items]).reshape(-1, 2)
    strong = truth["snr_local"][hit] > 10
    area = (shape[0] - 2 * BORDER_PX) * (shape[1] - 2 * BORDER_PX) / 1e6
    causes = [cause for _, cause in false]
    checked = pair.validation
    return {
        "false": len(false) / area,
        "false_clean": sum(not c.is_doubted for c, _ in false) / area,
        "false_clean_no_cr": sum(not c.is_doubted and cause != "cosmic ray" for c, cause in false) / area,
        **{
            f"false_{cause.replace(' ', '_')}": causes.count(cause) / area
            for cause in ("cosmic ray", "star", "other")
        },
        "s50_blank": s50(truth["snr_local"][usable & ~truth["on_host"]], hit[usable & ~truth["on_host"]]),
        "s50_host": s50(truth["snr_local"][usable & truth["on_host"]], hit[usable & truth["on_host"]]),
        "complete_above_10": _mean(hit[usable & (truth["snr_local"] > 10)]),
        "masked_injections": float(np.mean(~measured[inside])) if inside.any() else None,
        "flux_ratio": _median(ratio[strong]),
        "flux_pull_scatter": _scatter(pull),
        "position_pull": _scatter((offset / errors).ravel()) if items else None,
        "score_median": checked.median,
        "score_scatter": checked.std,
        "score_tails": checked.tail_ratio,
        "noise_scale": pair.difference.noise_scale,
        "flux_scale_error_percent": 100 * (pair.difference.flux_scale / sky.flux_scale - 1),
        "worst": [
            [round(c.x, 1), round(c.y, 1), round(c.score, 1), cause, *c.flags] for c, cause in false[:12]
        ],
    }


def s50(snr: Any, hit: Any) -> float | None:
    """S/N at which half is found: maximum likelihood of a logistic curve in log S/N."""
    from scipy.optimize import minimize

    if len(snr) < 10 or hit.all() or not hit.any():
        return None
    x = np.log(snr)

    def loss(p: Any) -> float:
        z = np.exp(p[1]) * (x - p[0])
        return float(np.sum(np.logaddexp(0, z) - hit * z))

    return float(np.exp(minimize(loss, [np.log(5.0), 2.0], method="Nelder-Mead").x[0]))


def _cause(sky: Any, c: Any) -> str:
    rows = slice(max(round(c.y) - 3, 0), round(c.y) + 4)
    columns = slice(max(round(c.x) - 3, 0), round(c.x) + 4)
    if sky.cosmic_rays_science[rows, columns].any():
        return "cosmic ray"
    x_r, y_r = sky.grid.to_reference(np.array([c.x]), np.array([c.y]))
    rows = slice(max(round(float(y_r[0])) - 3, 0), max(round(float(y_r[0])) + 4, 0))
    columns = slice(max(round(float(x_r[0])) - 3, 0), max(round(float(x_r[0])) + 4, 0))
    if sky.cosmic_rays_reference[rows, columns].any():
        return "cosmic ray"
    bright = sky.star_flux_e > 5e3
    near = np.hypot(sky.star_x[bright] - c.x, sky.star_y[bright] - c.y)
    return "star" if near.size and near.min() < 12 else "other"


def _inside(x: Any, y: Any, shape: tuple[int, int]) -> Any:
    return (x > BORDER_PX) & (y > BORDER_PX) & (x < shape[1] - BORDER_PX) & (y < shape[0] - BORDER_PX)


def _pixel(position: Any, side: int) -> Any:
    return np.clip(np.rint(position).astype(int), 0, side - 1)


def _median(values: Any) -> float | None:
    return float(np.median(values)) if len(values) else None


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _scatter(values: Any) -> float | None:
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) > 4 else None


COLUMNS = (
    ("false", "false/Mpix"), ("false_clean", "clean"), ("false_cosmic_ray", "of CR"),
    ("false_star", "of star"), ("s50_blank", "S50 blank"), ("s50_host", "S50 host"),
    ("complete_above_10", "compl>10"), ("flux_ratio", "flux"), ("flux_pull_scatter", "pull"),
    ("position_pull", "pos"), ("score_median", "median"), ("score_scatter", "scatter"),
    ("score_tails", "tails"), ("noise_scale", "scale"), ("flux_scale_error_percent", "gain %"),
    ("cpu_s_per_mpix", "CPU/Mpix"), ("peak_rss_mb", "MB"), ("chosen", "ran"),
)  # fmt: skip


def main() -> None:
    """Print one row per pair and algorithm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", type=int, nargs="+", help="seeds that nothing was tuned on")
    parser.add_argument("--size", type=int, default=1024, help="side of a frame, pixels")
    parser.add_argument("--kinds", default="realistic", help=f"comma-separated, of {', '.join(HARD)}")
    parser.add_argument("--algorithms", default="zogy,classic,auto,none")
    parser.add_argument(
        "--worst", action="store_true", help="list the strongest false candidates of each row"
    )
    parser.add_argument(
        "--files", action="store_true", help="write each pair to FITS files of integers, and read these"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of a table")
    options = parser.parse_args()
    if not options.json:
        print(" ".join(f"{title:>10}" for title in ("kind", "seed", "algorithm", *(t for _, t in COLUMNS))))
    for kind in options.kinds.split(","):
        for seed in options.seeds:
            for algorithm in options.algorithms.split(","):
                _report(Job(seed, options.size, kind, algorithm, options.files), options)


def _report(job: Job, options: argparse.Namespace) -> None:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        row = pool.apply(run_job, (job,))
    if options.json:
        print(json.dumps({"kind": job.kind, "seed": job.seed, "algorithm": job.algorithm, **row}), flush=True)
        return
    cells = [f"{job.kind:>10}", f"{job.seed:>10}", f"{job.algorithm:>10}"]
    print(
        " ".join(
            [*cells, row["failed"]] if "failed" in row else [*cells, *(_cell(row[n]) for n, _ in COLUMNS)]
        ),
        flush=True,
    )
    if options.worst and "worst" in row:
        for item in row["worst"]:
            print("    ", *item, flush=True)


def _cell(value: object) -> str:
    return f"{value:>10.3f}" if isinstance(value, float) else f"{value if value is not None else '-':>10}"


if __name__ == "__main__":
    main()
