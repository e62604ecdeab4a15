"""Pictures of frames, PSFs, noise and candidates, as PNG bytes.

Owns stretches, colours and layout; never measures anything and never writes a file. Figures are drawn with
matplotlib's Agg canvas directly: no display, no global state, safe in any thread.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Image = NDArray[np.floating]
Stretch = Literal["sky", "signed"]

#: Longest side of a frame in a picture, pixels; larger frames are averaged in blocks.
MOST_PIXELS = 560
#: Blue and orange are told apart by every kind of colour vision.
POSITIVE, NEGATIVE, NEUTRAL = "#d95f02", "#1f78b4", "#444444"
#: Background of what was not measured.
UNMEASURED = "#d8d8d8"


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One image with its title and how it is stretched: `sky` from the sky up, `signed` about zero."""

    image: Image
    title: str
    stretch: Stretch
    #: For `signed`: the value of the darkest colour; None: five times the scatter.
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A circle at a pixel position."""

    x: float
    y: float
    is_positive: bool


def frames_figure(panels: Sequence[Panel], marks: Sequence[Mark] = ()) -> bytes:
    """Panels side by side in two columns, the marks on those that are `signed`."""
    rows = -(-len(panels) // 2)
    ny, nx = panels[0].image.shape
    width, title, gap = 9.6, 0.28, 0.1
    side = (width - gap) / 2
    tall = side * ny / nx + title
    figure = empty_figure(width, rows * tall + (rows - 1) * gap, layout=None)
    height = figure.get_size_inches()[1]
    for number, panel in enumerate(panels):
        left, top = (number % 2) * (side + gap), (number // 2) * (tall + gap)
        axes = figure.add_axes(
            (left / width, 1 - (top + tall) / height, side / width, (tall - title) / height)
        )
        _show(axes, panel)
        if panel.stretch == "signed":
            _mark(axes, marks, nx)
    return png_of(figure)


def psf_figure(stamps: Sequence[tuple[str, Image]]) -> bytes:
    """PSFs beside each other on a logarithmic scale over four decades, with their radial profiles below."""
    figure = empty_figure(9.6, 5.6, layout=None)
    for number, (title, stamp) in enumerate(stamps):
        axes = figure.add_axes(((number + 0.1) / len(stamps), 0.52, 0.8 / len(stamps), 0.43))
        peak = float(np.max(stamp))
        axes.imshow(np.log10(np.maximum(stamp / peak, 1e-4)), origin="lower", cmap="viridis", vmin=-4, vmax=0)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    axes = figure.add_axes((0.08, 0.09, 0.9, 0.38))
    for style, (title, stamp) in zip(("-", "--", ":"), stamps, strict=False):
        radius, profile = radial_profile(stamp)
        axes.semilogy(radius, np.maximum(profile / profile[0], 1e-5), style, label=title)
    axes.set_xlabel("radius / px")
    axes.set_ylabel("profile / peak")
    axes.set_ylim(1e-5, 1.5)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return png_of(figure)


def noise_figure(values: NDArray[np.floating]) -> bytes:
    """Histogram of the score on empty sky against a standard Gaussian, counts on a logarithmic scale."""
    figure = empty_figure(9.6, 3.6, layout=None)
    axes = figure.add_axes((0.08, 0.14, 0.9, 0.83))
    edges = np.linspace(-6, 6, 97)
    middle, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    counts, _ = np.histogram(values, edges)
    expected = values.size * step * np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi)
    axes.stairs(np.maximum(counts, 0.1), edges, fill=True, color="#9ecae1", label="score on empty sky")
    axes.plot(middle, np.maximum(expected, 0.1), color=NEUTRAL, label="Gaussian of scatter 1")
    axes.set_yscale("log")
    axes.set_ylim(0.5, max(float(counts.max()) * 2, 10))
    axes.set_xlabel("score / sigma")
    axes.set_ylabel("pixels")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return png_of(figure)


def triplets_figure(rows: Sequence[tuple[str, Sequence[Panel]]]) -> bytes:
    """One row per candidate: its label and its cutouts."""
    columns = max(len(panels) for _, panels in rows)
    width, label_width, title, gap = 9.6, 0.9, 0.28, 0.08
    side = min((width - label_width) / columns - gap, 1.7)
    height = title + len(rows) * (side + gap)
    figure = empty_figure(width, height, layout=None)
    for row, (label, panels) in enumerate(rows):
        bottom = 1 - (title + row * (side + gap) + side) / height
        middle = bottom + side / height / 2
        figure.text((label_width - 0.12) / width, middle, label, fontsize=8.5, ha="right", va="center")
        for column, panel in enumerate(panels):
            left = (label_width + column * (side + gap)) / width
            axes = figure.add_axes((left, bottom, side / width, side / height))
            _show(axes, panel if row == 0 else Panel(panel.image, "", panel.stretch, panel.limit))
    return png_of(figure)


def radial_profile(stamp: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of a centred stamp in rings of one pixel: radii and values."""
    half = stamp.shape[0] // 2
    axis = np.arange(stamp.shape[0]) - half
    ring = np.rint(np.hypot(axis[:, None], axis[None, :])).astype(int).ravel()
    total = np.bincount(ring, np.asarray(stamp, float).ravel())
    profile = total / np.bincount(ring)
    return np.arange(half + 1, dtype=float), profile[: half + 1]


def block_mean(image: Image, most: int = MOST_PIXELS) -> Image:
    """The image averaged in blocks so that no side exceeds `most`; NaN counts for nothing."""
    step = -(-max(image.shape) // most)
    if step == 1:
        return image
    ny, nx = (side // step * step for side in image.shape)
    blocks = image[:ny, :nx].reshape(ny // step, step, nx // step, step)
    measured = np.isfinite(blocks)
    n = measured.sum(axis=(1, 3))
    total = np.where(measured, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def sky_limits(image: Image) -> tuple[float, float]:
    """Black and white of a sky: a little below the median, and far enough up for faint sources."""
    values = image[np.isfinite(image)]
    if values.size == 0:
        return 0.0, 1.0
    median = float(np.median(values))
    scatter = float(1.4826 * np.median(np.abs(values - median)))
    top = max(median + 12 * scatter, float(np.percentile(values, 99.0)))
    return median - 2 * scatter, top if top > median - 2 * scatter else median + 1.0


def empty_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty figure of so many inches; without a layout engine, which is slow, axes are placed by hand."""
    figure = Figure(figsize=(width, max(height, 1.0)), dpi=100, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Axes, panel: Panel) -> None:
    image = block_mean(panel.image)
    axes.set_facecolor(UNMEASURED)
    ny, nx = panel.image.shape
    extent = (-0.5, nx - 0.5, -0.5, ny - 0.5)
    if panel.stretch == "sky":
        low, high = sky_limits(image)
        axes.imshow(np.arcsinh((image - low) / (high - low) * 5), origin="lower", cmap="gray", vmin=0,
                    vmax=np.arcsinh(5), extent=extent, interpolation="nearest")  # fmt: skip
    else:
        limit = panel.limit or _signed_limit(image)
        axes.imshow(image, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent,
                    interpolation="nearest")  # fmt: skip
    if panel.title:
        axes.set_title(panel.title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def _signed_limit(image: Image) -> float:
    values = image[np.isfinite(image)]
    scatter = float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0
    return 5 * scatter if scatter > 0 else 1.0


def _mark(axes: Axes, marks: Sequence[Mark], nx: int) -> None:
    """Circles of about a sixtieth of the panel's width."""
    points = max(axes.get_window_extent().width / 30, 8 / nx) * 72 / axes.figure.dpi
    for is_positive, colour, style in ((True, POSITIVE, "-"), (False, NEGATIVE, "--")):
        places = [(mark.x, mark.y) for mark in marks if mark.is_positive == is_positive]
        if places:
            x, y = zip(*places, strict=True)
            axes.scatter(
                x, y, s=points**2, facecolors="none", edgecolors=colour, linewidths=1.1, linestyles=style
            )


def png_of(figure: Figure) -> bytes:
    """The figure as it is seen."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
