"""The pictures of the benchmark page: a transient beside a saturated star, false candidates against depth, a
real null pair.

Owns their layout and which seed each is drawn from; every number in them is measured here or read from
`benchmarks/results`. `transient` draws a simulated pair of seed 9202, the
first from 9201 on with such a transient; it is used for nothing else.

    python benchmarks/science/pictures.py transient contest
    python benchmarks/science/pictures.py null --pair science.fits reference.fits --credit "…"
"""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from pairs import make_pair
from peaks import saturated_stars, score_from_difference
from PIL import Image

from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.differencing.validate import sky_samples
from astrid_workers.imaging.background import estimate_background
from astrid_workers.imaging.cutout import cutout
from astrid_workers.mask import UNUSABLE
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.report.stretch import block_mean, sky_limits
from astrid_workers.sky import Sky
from astrid_workers.storage.fits import read_frame

ROOT = Path(__file__).parents[2]
IMAGES, RESULTS = ROOT / "docs" / "images", ROOT / "benchmarks" / "results"
SEED, SIZE_PX, CUTOUT_PX = 9202, 1024, 121
#: Transients that are shown: as bright as this, and this far from a saturated star, pixels.
SNR, DISTANCE_PX = (12.0, 40.0), (22.0, 60.0)
#: Blue, orange, green and purple of Okabe & Ito (2008): told apart by every kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#aa4499", "#666666"
#: Contender and setting → name, colour and where its label stands, points.
CONTENDERS = {
    ("sfft", "best"): ("SFFT", GREEN, (10, -4)),
    ("stdpipe-zogy", "best"): ("STDPipe ZOGY, best", PURPLE, (10, 6)),
    ("stdpipe-zogy", "default"): ("STDPipe ZOGY, default", PURPLE, (-150, 10)),
    ("stdpipe-sfft", "best"): ("STDPipe SFFT, best", GREEN, (10, 4)),
    ("stdpipe-sfft", "default"): ("STDPipe SFFT, default", GREEN, (10, -12)),
    ("properimage", "best"): ("properimage", GREY, (10, 6)),
    ("pyzogy", "best"): ("PyZOGY", GREY, (10, 6)),
    ("hotpants", "best"): ("HOTPANTS", GREY, (10, 6)),
}


def main() -> None:
    """Draw what is asked for into docs/images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="+", choices=("transient", "contest", "null"))
    parser.add_argument(
        "--pair", type=Path, nargs=2, metavar="FITS", help="a real pair in which nothing changed"
    )
    parser.add_argument("--credit", default="", help="whose frames these are")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    for name in options.pictures:
        if name == "null":
            figure = null_figure(*options.pair, options.credit)
        else:
            figure = {"transient": transient_figure, "contest": contest_figure}[name]()
        path = IMAGES / f"{name}.png"
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=100, format="png")
        # a palette of 256 colours is enough, and a third of the bytes
        few = (
            Image.open(drawn)
            .convert("RGB")
            .quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        )
        few.save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def empty_figure(width: float, height: float) -> Figure:
    """Inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def transient_figure() -> Figure:
    """The same cutout: what came in, and what two subtractions make of it."""
    sky = make_pair("realistic", SEED, SIZE_PX)
    ours = run_pair(*(calibrate(frame).frame for frame in (sky.science, sky.reference)))
    plain_difference, plain_score = _without_matching(ours)
    x, y, snr = _shown_transient(sky)
    figure = empty_figure(10.6, 6.6)
    axes = figure.subplots(2, 3)
    for where, frame, title in (
        (axes[0, 0], ours.science, "science"),
        (axes[1, 0], ours.reference, "reference, on the science grid"),
    ):
        lost = (frame.mask & UNUSABLE) != 0
        _sky_panel(where, cutout(np.where(lost, np.nan, frame.science), x, y, CUTOUT_PX), title)
    unit = ours.difference.unit
    shown = (
        (axes[0, 1], plain_difference, f"without PSF matching: difference / {unit}", 250.0),
        (axes[0, 2], plain_score, "without PSF matching: score / sigma", 10.0),
        (axes[1, 1], ours.difference.difference, f"Astrid: difference / {unit}", 250.0),
        (axes[1, 2], ours.difference.score, "Astrid: score / sigma", 10.0),
    )
    for where, image, title, limit in shown:
        _signed_panel(figure, where, cutout(image, x, y, CUTOUT_PX), title, limit)
    true = [(row["x"], row["y"]) for row in sky.truth]
    for where in axes.ravel():
        for at_x, at_y in true:
            across, up = at_x - round(x) + CUTOUT_PX // 2, at_y - round(y) + CUTOUT_PX // 2
            if 0 <= across < CUTOUT_PX and 0 <= up < CUTOUT_PX:
                where.add_patch(Circle((across, up), 7, fill=False, color=GREEN, lw=1.6))
        where.set_xlabel("x / px", fontsize=8)
        where.set_ylabel("y / px", fontsize=8)
    figure.suptitle(
        f"A transient of S/N {snr:.0f} on a galaxy (middle) beside a saturated star; simulated, "
        f"seed {SEED}.\nGreen rings: what is new or gone in truth, faint ones too. Grey: masked",
        fontsize=10,
    )
    return figure


def _without_matching(pair: PairResult) -> tuple[Any, Any]:
    """Science less the scaled reference and the sky, and its matched-filter score: the naive way."""
    science, reference, scale = pair.science, pair.reference, pair.difference.flux_scale
    valid = ((science.mask | reference.mask) & UNUSABLE) == 0
    difference = science.science - scale * reference.science
    difference -= estimate_background(difference, ~valid).level
    variance = np.where(valid, science.variance + scale**2 * reference.variance, 1.0)
    psf = pair.difference.psf_science.stamp.astype(np.float64)
    score, _, _ = score_from_difference(np.where(valid, difference, 0.0), psf, variance, valid)
    lost = np.where(valid, 0.0, np.nan)
    return difference + lost, score + lost


def _shown_transient(sky: Sky) -> tuple[float, float, float]:
    """The transient on a host nearest to a saturated star, among those that are clear of its core."""
    stars = np.column_stack(saturated_stars(sky)[:2])
    best: tuple[float, float, float, float] | None = None
    for row in sky.truth:
        x, y = float(row["x"]), float(row["y"])
        away = float(np.hypot(*(stars - (x, y)).T).min())
        inside = all(CUTOUT_PX / 2 < at < SIZE_PX - CUTOUT_PX / 2 for at in (x, y))
        bright = SNR[0] <= row["snr_local"] <= SNR[1] and row["on_host"] and row["sign"] > 0
        if inside and bright and DISTANCE_PX[0] < away < DISTANCE_PX[1] and (best is None or away < best[0]):
            best = away, x, y, float(row["snr_local"])
    if best is None:
        raise SystemExit(f"seed {SEED} has no such transient")
    return best[1:]


def _sky_panel(axes: Axes, image: Any, title: str) -> None:
    low, high = sky_limits(image)
    stretched = np.arcsinh((image - low) / (high - low) * 5)
    axes.imshow(stretched, cmap=_with_grey("gray"), origin="lower", vmin=0, vmax=np.arcsinh(5))
    axes.set_title(title, fontsize=9.5)
    axes.tick_params(labelsize=7)


def _signed_panel(figure: Figure, axes: Axes, image: Any, title: str, limit: float | None) -> None:
    values = image[np.isfinite(image)]
    limit = limit or float(8 * 1.4826 * np.median(np.abs(values - np.median(values))))
    drawn = axes.imshow(image, cmap=_with_grey("RdBu_r"), origin="lower", vmin=-limit, vmax=limit)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    axes.set_title(title, fontsize=9.5)
    axes.tick_params(labelsize=7)


def _with_grey(name: str) -> Any:
    from matplotlib import colormaps

    scale = colormaps[name].copy()
    scale.set_bad("#c8c8c8")
    return scale


def contest_figure() -> Figure:
    """False peaks per Mpix against the S/N at which half is found, per contender."""
    rows = [
        row
        for row in json.loads((RESULTS / "science-contest.json").read_text())["rows"]
        if row["kind"] == "realistic" and row["size"] == SIZE_PX and "failed" not in row
    ]
    figure = empty_figure(8.2, 4.9)
    axes = figure.subplots()
    for (contender, setting), (name, colour, at) in CONTENDERS.items():
        own = _rows_of(rows, contender, setting)
        face = "none" if setting == "default" else colour
        _contender(axes, own, [row["false"] for row in own], name, (colour, face), at)
    ours = _rows_of(rows, "astrid", "auto")
    _contender(
        axes, ours, [row["false"] for row in ours], "Astrid, bare score map", (BLUE, "none"), (-60, 20)
    )
    delivered = [row["list_false"] for row in ours]
    _contender(axes, ours, delivered, "Astrid, delivered", (BLUE, BLUE), (12, -2))
    oracle = float(np.mean([row["s50_blank"] for row in _rows_of(rows, "oracle", "told")]))
    axes.axvline(oracle, color="black", lw=1, ls=":")
    axes.annotate("oracle: 0 false", (oracle - 0.03, 8), fontsize=8.5, rotation=90, ha="right")
    axes.axhline(2, color=GREY, lw=1, ls="--")
    axes.annotate("bar for what is delivered: 2", (7.37, 2.15), fontsize=8.5, color=GREY, ha="right")
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    axes.set(yscale="log", ylim=(0.3, 900), xlim=(4.6, 7.4))
    axes.set_yticks(
        [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500],
        ["0.5", "1", "2", "5", "10", "20", "50", "100", "200", "500"],
    )
    axes.minorticks_off()
    axes.set_xlabel("S/N at which half of the transients on blank sky are found (left is deeper)")
    axes.set_ylabel("false candidates per Mpix at |score| > 5")
    axes.set_title(
        f"Realistic pairs of 1024 × 1024, seeds {seeds}: means, and each pair as a small point.\n"
        "Peaks of score maps outside the true masks; delivered: with Astrid's own masks and checks",
        fontsize=9,
    )
    axes.grid(alpha=0.3, which="major")
    return figure


def _rows_of(rows: Sequence[dict[str, Any]], contender: str, setting: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row["contender"], row["setting"]) == (contender, setting)]


def _contender(
    axes: Axes,
    rows: Sequence[dict[str, Any]],
    false: Sequence[float],
    name: str,
    colours: tuple[str, str],
    label_at: tuple[float, float],
) -> None:
    """One contender: each pair, the mean in the colours of rim and face, and its name."""
    if not rows:
        return
    depth, (rim, face) = [row["s50_blank"] for row in rows], colours
    axes.plot(depth, np.maximum(false, 0.35), ".", ms=4, color=rim, alpha=0.6)
    x, y = float(np.mean(depth)), max(float(np.mean(false)), 0.35)
    axes.plot(x, y, "o", ms=9, mfc=face, mec=rim, mew=1.6)
    label = f"{name}: {np.mean(false):.3g}"
    axes.annotate(label, (x, y), label_at, textcoords="offset points", color=rim, fontsize=9)


def null_figure(science: Path, reference: Path, credit: str) -> Figure:
    """A real pair between which nothing changed: frames, score, and its histogram."""
    frames = [calibrate(read_frame(path)).frame for path in (science, reference)]
    pair = run_pair(*frames)
    made, checked = pair.difference, pair.validation
    figure = empty_figure(10.0, 6.4)
    axes = figure.subplots(2, 2)
    for where, frame, title in (
        (axes[0, 0], pair.science, "science, averaged in blocks"),
        (axes[0, 1], pair.reference, "reference, on the science grid"),
    ):
        lost = (frame.mask & UNUSABLE) != 0
        _sky_panel(where, block_mean(np.where(lost, np.nan, frame.science), 520), title)
        where.set_xticks([])
        where.set_yticks([])
    _signed_panel(figure, axes[1, 0], made.score, "score / sigma", 5.0)
    axes[1, 0].set_xlabel("x / px", fontsize=8)
    axes[1, 0].set_ylabel("y / px", fontsize=8)
    _noise_panel(axes[1, 1], made.score[sky_samples(made)], checked)
    mpix = made.score.size / 1e6
    figure.suptitle(
        f"A real null pair: {len(pair.candidates)} candidates beyond 5 sigma in {mpix:.2f} Mpix. {credit}",
        fontsize=10,
    )
    return figure


def _noise_panel(axes: Axes, values: Any, checked: Any) -> None:
    edges = np.linspace(-6, 6, 97)
    middle, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, fill=True, color="#9ecae1", label="score on empty sky")
    expected = values.size * step * np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi)
    axes.plot(middle, expected, color=ORANGE, lw=1.8, label="Gaussian of median 0, scatter 1")
    axes.set(yscale="log", ylim=(0.5, counts.max() * 3), xlim=(-6, 6))
    axes.set_xlabel("score / sigma", fontsize=8)
    axes.set_ylabel("pixels", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=8, loc="upper right", frameon=False)
    said = (
        f"median {checked.median:+.3f}",
        f"scatter {checked.std:.3f}",
        f"|score| > 3: {checked.tail_ratio:.2f} × Gaussian",
    )
    axes.annotate("\n".join(said), (0.02, 0.96), xycoords="axes fraction", va="top", fontsize=8.5)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
