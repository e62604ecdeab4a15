"""The report of one subtraction, as a page and as numbers.

Owns what is shown of a pair and in which order; never measures, never writes a file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astrid_workers.differencing.pair import PairResult
from astrid_workers.differencing.products import Candidate
from astrid_workers.differencing.star_residuals import star_residuals
from astrid_workers.differencing.validate import sky_samples
from astrid_workers.frame import Frame, Uint32Image
from astrid_workers.imaging.cutout import cutout
from astrid_workers.mask import UNUSABLE
from astrid_workers.report.figures import Mark, frames_figure, noise_figure, psf_figure, triplets_figure
from astrid_workers.report.maps import psf_map_figure, residuals_figure, shift_map_figure
from astrid_workers.report.page import Picture, Section, Table, render_page
from astrid_workers.report.stretch import Image, Panel

#: Candidates with pictures, and rows of the table.
MOST_TRIPLETS, MOST_ROWS = 10, 100
#: Marks on a frame beyond which circles hide more than they show.
MOST_MARKS = 200
CUTOUT_PX = 41


def pair_numbers(pair: PairResult) -> dict[str, Any]:
    """Everything measured about a subtraction, storable as JSON; None: not measured."""
    made, checked, registration = pair.difference, pair.validation, pair.registration
    return {
        "algorithm": made.algorithm,
        "why": made.why,
        "unit": made.unit,
        "shape": list(made.shape),
        "fwhm_science_px": made.fwhm_science_px,
        "fwhm_reference_px": made.fwhm_reference_px,
        "flux_scale": made.flux_scale,
        "noise_scale": made.noise_scale,
        "zero_point_mag": pair.science.facts.zero_point_mag,
        "threshold": pair.candidates.threshold_sigma,
        "n_candidates": len(pair.candidates),
        "set_aside": dict(pair.candidates.rejected),
        "assumed": list(made.assumed),
        "registration": {
            "method": registration.method,
            "dx_px": registration.dx,
            "dy_px": registration.dy,
            "rotation_deg": registration.rotation_deg,
            "scale": registration.scale,
            "is_mirrored": registration.is_mirrored,
            "ra_offset_arcsec": registration.ra_offset_arcsec,
            "dec_offset_arcsec": registration.dec_offset_arcsec,
            "rms_px": registration.rms_px,
            "n_matched": registration.n_matched,
            "overlap_fraction": registration.overlap_fraction,
        },
        "validation": {
            "passed": checked.passed,
            "reasons": list(checked.reasons),
            "noise_level": checked.noise_level,
            "score_median": checked.median,
            "score_scatter": checked.std,
            "score_tail_ratio": checked.tail_ratio,
            "spatial_correlation": checked.spatial_correlation,
            "residual_power": checked.residual_power,
            "saturation_fraction": checked.saturation_fraction,
            "valid_fraction": checked.valid_fraction,
            "sky_samples": checked.n_sky_samples,
        },
        "numbers": dict(made.numbers),
    }


def pair_page(pair: PairResult, report: Mapping[str, Any], title: str, more: Sequence[Section] = ()) -> str:
    """The page for a pair and its report (the numbers, with what the run adds to them).

    Sections in `more` stand before the numbers.
    """
    found = len(pair.candidates)
    clean = sum(not c.is_doubted for c in pair.candidates.items)
    checked = "passed its checks" if pair.validation.passed else "did not pass its checks"
    lead = (
        f"{found} candidate{'s' if found != 1 else ''} beyond {pair.candidates.threshold_sigma:g} sigma, "
        f"{clean} of them "
        f"without a flag that speaks against it; the subtraction {checked}."
    )
    sections = [
        _frames(pair),
        _candidates(pair),
        _trust(pair),
        *_stars(pair),
        _psfs(pair),
        *_registration(pair),
        *more,
        _numbers(pair, report),
    ]
    return render_page(title, lead, _facts(report), sections, f"Astrid {report.get('version', '')}".strip())


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("candidates", _text(report.get("n_candidates"))),
        ("algorithm", _text(report.get("algorithm"))),
        ("FWHM science / px", _text(report.get("fwhm_science_px"))),
        ("FWHM reference / px", _text(report.get("fwhm_reference_px"))),
        ("flux scale", _text(report.get("flux_scale"))),
        ("noise scale", _text(report.get("noise_scale"))),
        ("zero point / mag", _zero_point(report.get("zero_point_mag"))),
        ("seconds", _text(report.get("seconds"))),
    ]


def _zero_point(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "none in the header"


def _frames(pair: PairResult) -> Section:
    made = pair.difference
    marks = [Mark(c.x, c.y, c.is_positive) for c in pair.candidates.items[:MOST_MARKS]]
    drawing = frames_figure(
        [
            Panel(_visible(pair.science.science, pair.science.mask), "science", "sky"),
            Panel(
                _visible(pair.reference.science, pair.reference.mask), "reference, on the science grid", "sky"
            ),
            Panel(made.difference, f"difference ({made.unit})", "signed"),
            Panel(made.score, "score (sigma, ±5)", "signed", 5.0),
        ],
        marks,
    )
    caption = (
        "Science and reference from the sky up; difference and score about zero, red positive and blue "
        "negative. "
        "Solid circles are positive candidates, dashed ones negative. Grey was not measured."
    )
    alt = f"Four images: science, reference, difference and score, with {len(marks)} candidates circled."
    return Section("Frames", pictures=[Picture(drawing, alt, caption)])


def _visible(image: Image, mask: Uint32Image) -> Image:
    return np.where((mask & np.uint32(UNUSABLE)) != 0, np.nan, image)


def _candidates(pair: PairResult) -> Section:
    items = pair.candidates.items
    if not items:
        return Section("Candidates", [f"Nothing beyond {pair.candidates.threshold_sigma:g} sigma."])
    best = sorted(items, key=lambda c: (c.is_doubted, -abs(c.score)))[:MOST_TRIPLETS]
    drawing = triplets_figure([(f"#{c.index}\n{c.score:+.1f} σ", _cutouts(pair, c)) for c in best])
    caption = (
        f"Cutouts of {CUTOUT_PX} pixels around the strongest candidates, those that no flag speaks against "
        "first."
    )
    alt = "For each candidate: science, reference, difference and score around it."
    return Section("Candidates", pictures=[Picture(drawing, alt, caption)], tables=[_candidate_table(pair)])


def _cutouts(pair: PairResult, c: Candidate) -> list[Panel]:
    made = pair.difference
    return [
        Panel(_visible_cutout(pair.science, c), "science", "sky"),
        Panel(_visible_cutout(pair.reference, c), "reference", "sky"),
        Panel(cutout(made.difference, c.x, c.y, CUTOUT_PX), "difference", "signed"),
        Panel(cutout(made.score, c.x, c.y, CUTOUT_PX), "score", "signed", max(5.0, abs(c.score) / 2)),
    ]


def _visible_cutout(frame: Frame, c: Candidate) -> Image:
    bits = np.nan_to_num(cutout(frame.mask, c.x, c.y, CUTOUT_PX)).astype(np.uint32)
    return _visible(cutout(frame.science, c.x, c.y, CUTOUT_PX), bits)


def _candidate_table(pair: PairResult) -> Table:
    items = pair.candidates.items
    shown = items[:MOST_ROWS]
    caption = f"Candidates, strongest first ({len(shown)} of {len(items)})"
    columns = [
        "#",
        "x / px",
        "y / px",
        "RA / deg",
        "Dec / deg",
        f"flux / {pair.difference.unit}",
        "S/N",
        "score",
        "flags",
    ]
    return Table(caption, columns, [_row(c) for c in shown])


def _row(c: Candidate) -> list[str]:
    flux = f"{c.flux:.4g} ± {c.flux_err:.2g}"
    place = [f"{c.x:.2f}", f"{c.y:.2f}", _degrees(c.ra_deg), _degrees(c.dec_deg)]
    return [str(c.index), *place, flux, f"{c.snr:.1f}", f"{c.score:+.1f}", ", ".join(c.flags) or "none"]


def _trust(pair: PairResult) -> Section:
    values = pair.difference.score[sky_samples(pair.difference)]
    checked = pair.validation
    told = (
        "On empty sky the score must be a Gaussian of scatter 1 about 0, or a significance means nothing. "
        f"Here its median is {_text(checked.median)}, its scatter {_text(checked.std)}, "
        f"and |score| > 3 is {_text(checked.tail_ratio)} times as frequent as for a Gaussian."
    )
    paragraphs = [told]
    paragraphs += [f"Not passed: {reason}." for reason in checked.reasons]
    pictures = []
    if values.size:
        alt = "Histogram of the score on empty sky against a Gaussian of scatter 1."
        pictures.append(Picture(noise_figure(values), alt, f"{values.size} pixels of empty sky."))
    return Section("Can it be believed?", paragraphs, pictures)


def _psfs(pair: PairResult) -> Section:
    made = pair.difference
    drawing = psf_figure(
        [
            ("science", made.psf_science.stamp),
            ("reference", made.psf_reference.stamp),
            ("difference", made.psf),
        ]
    )
    paragraphs = [f"Science: {made.psf_science.why}. Reference: {made.psf_reference.why}."]
    alt = "Point-spread functions of science, reference and difference with their radial profiles."
    pictures = [Picture(drawing, alt, "At the centre of the frame, over four decades.")]
    if made.psf_science.order or made.psf_reference.order:
        over = psf_map_figure([("science", made.psf_science), ("reference", made.psf_reference)])
        alt = "Maps of the width and the elongation of both frames' point-spread functions."
        caption = "How they vary over the frame: width as colour, sticks along the longer axis."
        pictures.append(Picture(over, alt, caption))
    else:
        paragraphs.append("Neither was found to vary over the frame.")
    return Section("Point-spread functions", paragraphs, pictures)


def _stars(pair: PairResult) -> list[Section]:
    """What is left at stars; no section without matched stars."""
    left = star_residuals(pair.science, pair.difference)
    if left is None:
        return []
    power = _percent(pair.validation.residual_power)
    model = _percent(pair.difference.numbers.get("model_error"))
    told = (
        f"Constant stars should vanish. Of the matched sources' power {power} is left; the score allows for "
        f"models that err by {model} at bright stars, so that it stays within its Gaussian there too."
    )
    alt = "The stacked star, what the subtraction leaves of it, and the score at each star against its light."
    caption = (
        f"Left: median of the {left.n_stacked} brightest matched stars over four decades, and of the "
        f"difference at them. Right: the score at {left.score.size} stars; dashed lines at ±3 sigma."
    )
    return [Section("What is left at stars", [told], [Picture(residuals_figure(left), alt, caption)])]


def _registration(pair: PairResult) -> list[Section]:
    """How the frames were brought together; no section where that is not known over the frame."""
    match, found = pair.difference.match, pair.registration
    if match is None:
        return []
    scatter = "not measured" if found.rms_px is None else f"{found.rms_px:.3f} px"
    told = (
        f"The reference was moved by {_signed(found.dx)}, {_signed(found.dy)} px beyond the headers "
        f"({found.method}, {found.n_matched} stars, scatter {scatter} per axis), then by the map on the left "
        "and the gain on the right."
    )
    alt = "Maps of the residual shift and of the gain between the frames."
    return [
        Section(
            "Registration and gain",
            [told],
            [Picture(shift_map_figure(match), alt, "Dashes on the right are the matched sources.")],
        )
    ]


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"


def _percent(value: object) -> str:
    return f"{100 * value:.2g} %" if isinstance(value, float) else "what was not measured"


def _numbers(pair: PairResult, report: Mapping[str, Any]) -> Section:
    assumed = [f"• {sentence}" for sentence in pair.difference.assumed] or ["Nothing was assumed."]
    rows = [[name.replace("_", " "), _text(value)] for name, value in _flat(report)]
    return Section(
        "Numbers and assumptions",
        [pair.difference.why + ".", *assumed],
        tables=[Table("Measured", ["what", "value"], rows)],
    )


def _flat(report: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in report.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}: ")
        elif name not in ("assumed", "why", "reasons", "curve_snr", "curve_mag"):
            rows.append((prefix + name, value))
    return rows


def _text(value: object) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " × ".join(map(str, value))
    return str(value)


def _degrees(value: float | None) -> str:
    return "–" if value is None else f"{value:.6f}"
