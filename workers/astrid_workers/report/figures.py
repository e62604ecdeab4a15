"""The pictures of a report: frames, candidates, PSFs and noise, as SVG.

Owns their layout; never measures anything and never writes a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.report.drawing import NEGATIVE, NEUTRAL, POSITIVE, TITLE_PX, Plot, Sheet
from astrid_workers.report.stretch import Image, Panel

#: Width of every picture, and what lies between frames, between cutouts and left of them, pixels.
WIDTH, FRAME_GAP, CUTOUT_GAP, LABEL_PX = 960, 10, 8, 90
MOST_CUTOUT_PX = 170
#: Height of a plot with its labels, and where its axes stand in it: left, top, width and height.
PLOT_PX, PLOT_BOX = 300, (70.0, 12.0, 875.0, 240.0)
#: Diameter of a circle: this share of the image's width, and at least so many of its pixels.
CIRCLE_SHARE, CIRCLE_PX = 1 / 30, 8
#: Counts below this are drawn at it, where the axis begins.
_LEAST_COUNT = 0.5


@dataclass(frozen=True, slots=True)
class Mark:
    """A circle at a pixel position."""

    x: float
    y: float
    is_positive: bool


def frames_figure(panels: Sequence[Panel], marks: Sequence[Mark] = ()) -> str:
    """Panels side by side in two columns, the marks on those that are `signed`, dashed where negative."""
    ny, nx = panels[0].image.shape
    side = (WIDTH - FRAME_GAP) // 2
    tall = max(round(side * ny / nx), 1)
    row_px = TITLE_PX + tall + FRAME_GAP
    sheet = Sheet(WIDTH, -(-len(panels) // 2) * row_px - FRAME_GAP)
    radius = max(side * CIRCLE_SHARE, CIRCLE_PX * side / nx) / 2
    for number, panel in enumerate(panels):
        left, top = (number % 2) * (side + FRAME_GAP), (number // 2) * row_px + TITLE_PX
        sheet.panel(panel, (left, top, side, tall))
        for mark in marks if panel.stretch == "signed" else ():
            x, y = left + (mark.x + 0.5) * side / nx, top + tall - (mark.y + 0.5) * tall / ny
            colour = POSITIVE if mark.is_positive else NEGATIVE
            sheet.circle(x, y, radius, colour, dashed=not mark.is_positive)
    return sheet.svg()


def psf_figure(stamps: Sequence[tuple[str, Image]]) -> str:
    """PSFs beside each other on a logarithmic scale over four decades, with their radial profiles below."""
    sheet = Sheet(WIDTH, 2 * PLOT_PX)
    side, column = PLOT_PX - 2 * TITLE_PX, WIDTH // len(stamps)
    for number, (title, stamp) in enumerate(stamps):
        left = number * column + (column - side) // 2
        sheet.panel(Panel(stamp, title, "decades"), (left, TITLE_PX, side, side))
    widest = max(stamp.shape[0] // 2 for _, stamp in stamps)
    box = (PLOT_BOX[0], PLOT_PX + PLOT_BOX[1], *PLOT_BOX[2:])
    plot = Plot(sheet, box, (0, widest), (1e-5, 1.5), ("radius / px", "profile / peak"), log="y")
    styles = ((POSITIVE, ""), (NEGATIVE, "6 3"), (NEUTRAL, "2 3"))
    for (colour, dash), (title, stamp) in zip(styles, stamps, strict=False):
        radius, profile = radial_profile(stamp)
        plot.line(radius, np.maximum(profile / profile[0], 1e-5), colour, name=title, dash=dash)
    return sheet.svg()


def noise_figure(values: NDArray[np.floating]) -> str:
    """Histogram of the score on empty sky against a standard Gaussian, counts on a logarithmic scale."""
    sheet = Sheet(WIDTH, PLOT_PX)
    edges = np.linspace(-6, 6, 97)
    middle, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    counts, _ = np.histogram(values, edges)
    expected = values.size * step * np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi)
    top = max(float(counts.max()) * 2, 10)
    plot = Plot(sheet, PLOT_BOX, (-6, 6), (_LEAST_COUNT, top), ("score / sigma", "pixels"), log="y")
    stairs = np.repeat(np.maximum(counts, _LEAST_COUNT), 2)
    plot.line(
        np.repeat(edges, 2)[1:-1], stairs, NEGATIVE, name="score on empty sky", fill="#9ecae1", width=0.8
    )
    plot.line(middle, np.maximum(expected, _LEAST_COUNT), POSITIVE, name="Gaussian of scatter 1")
    return sheet.svg()


def triplets_figure(rows: Sequence[tuple[str, Sequence[Panel]]]) -> str:
    """One row per candidate: its label and its cutouts."""
    columns = max(len(panels) for _, panels in rows)
    side = min((WIDTH - LABEL_PX) // columns - CUTOUT_GAP, MOST_CUTOUT_PX)
    sheet = Sheet(LABEL_PX + columns * (side + CUTOUT_GAP), TITLE_PX + len(rows) * (side + CUTOUT_GAP))
    for row, (label, panels) in enumerate(rows):
        top = TITLE_PX + row * (side + CUTOUT_GAP)
        sheet.write(label, LABEL_PX - 12, top + side / 2, anchor="end")
        for column, panel in enumerate(panels):
            box = (LABEL_PX + column * (side + CUTOUT_GAP), top, side, side)
            sheet.panel(panel, box, panel.title if row == 0 else "")
    return sheet.svg()


def radial_profile(stamp: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of a centred stamp in rings of one pixel: radii and values."""
    half = stamp.shape[0] // 2
    axis = np.arange(stamp.shape[0]) - half
    ring = np.rint(np.hypot(axis[:, None], axis[None, :])).astype(int).ravel()
    total = np.bincount(ring, np.asarray(stamp, float).ravel())
    profile = total / np.bincount(ring)
    return np.arange(half + 1, dtype=float), profile[: half + 1]
