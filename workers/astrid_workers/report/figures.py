"""The pictures of a report: frames, candidates, PSFs and noise, as PNG bytes.

Owns their layout; never measures anything and never writes a file.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from astrid_workers.report.drawing import NEUTRAL
from astrid_workers.report.sheet import TITLE_PX, Image, Mark, Panel, Sheet, painted

#: Width of every picture, and what lies between frames, between cutouts and left of them, pixels.
WIDTH, FRAME_GAP, CUTOUT_GAP, LABEL_PX = 960, 10, 8, 90
MOST_CUTOUT_PX = 170
#: Height of a plot with its labels, and where its axes stand in it: left, width and height.
PLOT_PX, PLOT_BOX = 300, (80, 865, 245)


def frames_figure(panels: Sequence[Panel], marks: Sequence[Mark] = ()) -> bytes:
    """Panels side by side in two columns, the marks on those that are `signed`."""
    ny, nx = panels[0].image.shape
    side = (WIDTH - FRAME_GAP) // 2
    tall = max(round(side * ny / nx), 1)
    row_px = TITLE_PX + tall + FRAME_GAP
    sheet = Sheet(WIDTH, -(-len(panels) // 2) * row_px - FRAME_GAP)
    for number, panel in enumerate(panels):
        left, top = (number % 2) * (side + FRAME_GAP), (number // 2) * row_px + TITLE_PX
        sheet.paste(painted(panel, side, tall), left, top, panel.title)
        if panel.stretch == "signed":
            sheet.circle(marks, panel.image.shape, (left, top, side, tall))
    return sheet.png()


def psf_figure(stamps: Sequence[tuple[str, Image]]) -> bytes:
    """PSFs beside each other on a logarithmic scale over four decades, with their radial profiles below."""
    sheet = Sheet(WIDTH, 2 * PLOT_PX)
    side, column = PLOT_PX - 2 * TITLE_PX, WIDTH // len(stamps)
    for number, (title, stamp) in enumerate(stamps):
        left = number * column + (column - side) // 2
        sheet.paste(painted(Panel(stamp, title, "decades"), side, side), left, TITLE_PX, title)
    axes = sheet.plot(PLOT_BOX[0], PLOT_PX, *PLOT_BOX[1:])
    axes.set_yscale("log", subs=[])
    for style, (title, stamp) in zip(("-", "--", ":"), stamps, strict=False):
        radius, profile = radial_profile(stamp)
        axes.plot(radius, np.maximum(profile / profile[0], 1e-5), style, label=title)
    axes.set_xlabel("radius / px")
    axes.set_ylabel("profile / peak")
    axes.set_ylim(1e-5, 1.5)
    axes.legend(fontsize=9)
    return sheet.png()


def noise_figure(values: NDArray[np.floating]) -> bytes:
    """Histogram of the score on empty sky against a standard Gaussian, counts on a logarithmic scale."""
    sheet = Sheet(WIDTH, PLOT_PX)
    axes = sheet.plot(PLOT_BOX[0], 10, *PLOT_BOX[1:])
    axes.set_yscale("log", subs=[])
    edges = np.linspace(-6, 6, 97)
    middle, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    counts, _ = np.histogram(values, edges)
    expected = values.size * step * np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi)
    axes.stairs(np.maximum(counts, 0.1), edges, fill=True, color="#9ecae1", label="score on empty sky")
    axes.plot(middle, np.maximum(expected, 0.1), color=NEUTRAL, label="Gaussian of scatter 1")
    axes.set_ylim(0.5, max(float(counts.max()) * 2, 10))
    axes.set_xlabel("score / sigma")
    axes.set_ylabel("pixels")
    axes.legend(fontsize=9)
    return sheet.png()


def triplets_figure(rows: Sequence[tuple[str, Sequence[Panel]]]) -> bytes:
    """One row per candidate: its label and its cutouts."""
    columns = max(len(panels) for _, panels in rows)
    side = min((WIDTH - LABEL_PX) // columns - CUTOUT_GAP, MOST_CUTOUT_PX)
    sheet = Sheet(WIDTH, TITLE_PX + len(rows) * (side + CUTOUT_GAP))
    for row, (label, panels) in enumerate(rows):
        top = TITLE_PX + row * (side + CUTOUT_GAP)
        sheet.write(label, LABEL_PX - 12, top + side / 2, ha="right", va="center", fontsize=8.5)
        for column, panel in enumerate(panels):
            title = panel.title if row == 0 else ""
            sheet.paste(painted(panel, side, side), LABEL_PX + column * (side + CUTOUT_GAP), top, title)
    return sheet.png()


def radial_profile(stamp: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of a centred stamp in rings of one pixel: radii and values."""
    half = stamp.shape[0] // 2
    axis = np.arange(stamp.shape[0]) - half
    ring = np.rint(np.hypot(axis[:, None], axis[None, :])).astype(int).ravel()
    total = np.bincount(ring, np.asarray(stamp, float).ravel())
    profile = total / np.bincount(ring)
    return np.arange(half + 1, dtype=float), profile[: half + 1]
