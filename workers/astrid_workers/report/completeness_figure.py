"""How deep a frame is, as a picture and the words beside it.

Owns the completeness figure and its section of the report; never injects and never fits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astrid_workers.report.drawing import NEGATIVE, NEUTRAL, POSITIVE, Plot, Sheet
from astrid_workers.report.figures import WIDTH
from astrid_workers.report.page import Picture, Section, Table

_HEIGHT_PX = 340
#: Rows of the table: key of the numbers, name.
_KINDS = (("blank", "blank sky"), ("on_source", "on a source"), ("all", "all"))


def completeness_section(numbers: Mapping[str, Any]) -> Section:
    """The report's section for its `injections`."""
    told = (
        f"{numbers['injected']} of {numbers['asked']} sources of known flux found room in the science frame; "
        f"{numbers['found']} came back beyond {numbers['threshold']:g} sigma, "
        f"{numbers['found_with_a_flag']} of them with a flag. S/N is flux over the difference's flux error "
        "at the place."
    )
    alt = (
        "Share of injected sources found against their signal-to-noise ratio, and against magnitude or flux."
    )
    caption = "Bars are binomial (68 %). The line is where half are found, over the whole frame."
    return Section(
        "How deep is this frame?",
        [told, *_quality_sentences(numbers)],
        [Picture(completeness_figure(numbers), alt, caption)],
        [_table(numbers)],
    )


def completeness_figure(numbers: Mapping[str, Any]) -> str:
    """Completeness against S/N, and against magnitude where there is a zero point: SVG."""
    panels = [(numbers["curve_snr"], "S/N", numbers["all"]["snr_50"], NEGATIVE)]
    if numbers["curve_mag"] is not None:
        panels.append((numbers["curve_mag"], "magnitude", numbers["all"]["mag_50"], POSITIVE))
    sheet = Sheet(WIDTH, _HEIGHT_PX)
    column = WIDTH / len(panels)
    for number, (curve, label, limit, colour) in enumerate(panels):
        left = number * column + 70
        _draw(sheet, (left, 12, column - 85, _HEIGHT_PX - 60), curve, label, limit, colour)
    return sheet.svg()


def _draw(
    sheet: Sheet,
    box: tuple[float, float, float, float],
    curve: Sequence[Mapping[str, Any]],
    label: str,
    limit: float | None,
    colour: str,
) -> None:
    known = [one for one in curve if one["fraction"] is not None]
    if not known:
        sheet.write("nothing was measured", box[0] + box[2] / 2, box[1] + box[3] / 2)
        return
    middle = np.array([(one["low"] + one["high"]) / 2 for one in known])
    share = np.array([one["fraction"] for one in known])
    low, high = (np.array([one["interval"][i] for one in known]) for i in (0, 1))
    ends = (min(one["low"] for one in known), max(one["high"] for one in known))
    plot = Plot(sheet, box, ends, (0.0, 1.05), (label, "share found"), log="x" if label == "S/N" else "")
    plot.line(np.array(ends), np.array([0.5, 0.5]), NEUTRAL, dash="2 3", width=1)
    plot.line(middle, share, colour)
    plot.points(middle, share, colour, bars=(low, high))
    if limit is not None and ends[0] <= limit <= ends[1]:
        plot.line(np.array([limit, limit]), np.array([0.0, 1.05]), NEUTRAL, dash="6 4", width=1.2)
        across, up = plot.places(np.array([limit]), np.array([0.04]))
        sheet.write(f"50 % at {limit:.2f}", across[0] - 5, up[0], anchor="start", turned=True)


def _table(numbers: Mapping[str, Any]) -> Table:
    columns = [
        "where",
        "injected",
        "S/N at 50 %",
        "S/N at 90 %",
        "mag at 50 %",
        "mag at 90 %",
        "above S/N 10",
    ]
    rows = []
    for key, name in _KINDS:
        one = numbers[key]
        limits = [
            _with_error(one[limit], one[f"{limit}_err"]) for limit in ("snr_50", "snr_90", "mag_50", "mag_90")
        ]
        rows.append([name, str(one["n"]), *limits, _share(one["completeness_above_snr_10"])])
    return Table("Completeness", columns, rows)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "not reached or not known"
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.1f} %"


def _quality_sentences(numbers: Mapping[str, Any]) -> list[str]:
    sentences = []
    if numbers["flux_bias"] is not None:
        sentences.append(
            f"Of the light put in, the difference shows {100 * (1 + numbers['flux_bias']):.1f} ± "
            f"{100 * numbers['flux_bias_err']:.1f} %."
        )
    if numbers["position_scatter_px"] is not None:
        sentences.append(
            f"Sources above S/N 10 come back with a scatter of {100 * numbers['flux_scatter']:.1f} % in flux "
            f"({numbers['flux_pull_scatter']:.2f} of their quoted errors) and of "
            f"{numbers['position_scatter_px']:.2f} px per axis."
        )
    return sentences
