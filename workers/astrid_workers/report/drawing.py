"""Drawings as SVG: sheets with images, words, circles and lines on them.

Owns the markup of each, places in pixels from the left and the top, and the colours that every picture
shares; never knows what is drawn. Words and lines take the page's colour, and stay sharp on paper.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from astrid_workers.report.png import indexed_png
from astrid_workers.report.stretch import Panel, levels, palette

#: Orange and blue are told apart by every kind of colour vision.
POSITIVE, NEGATIVE, NEUTRAL = "#d95f02", "#1f78b4", "#777777"
#: Room above an image for its title, and height of words, pixels.
TITLE_PX, WORD_PX = 24, 13
#: An image of fewer pixels than this a side shows them as squares.
_CRISP_PX = 128


class Sheet:
    """Paper of so many pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._parts: list[str] = []

    def add(self, markup: str) -> None:
        """Put any element on top."""
        self._parts.append(markup)

    def panel(self, panel: Panel, box: tuple[float, float, float, float], title: str | None = None) -> None:
        """A panel in a box (left, top, width, height), its title above, a line about it."""
        index = levels(panel)
        left, top, width, height = box
        data = base64.b64encode(indexed_png(index, palette(panel.stretch))).decode("ascii")
        crisp = ' style="image-rendering:pixelated"' if max(index.shape) < _CRISP_PX else ""
        place = f'x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}"'
        self.add(f'<image {place} preserveAspectRatio="none"{crisp} href="data:image/png;base64,{data}"/>')
        self.add(f'<rect {place} fill="none" stroke="{NEUTRAL}"/>')
        title = panel.title if title is None else title
        if title:
            self.write(title, left + width / 2, top - 7)

    def write(
        self, text: str, left: float, top: float, *, anchor: str = "middle", turned: bool = False
    ) -> None:
        """Words whose baseline lies at `top`; several lines where the text has them; `turned` to read
        upwards.
        """
        turn = f' transform="rotate(-90 {left:g} {top:g})"' if turned else ""
        lines = text.split("\n")
        spans = "".join(
            f'<tspan x="{left:g}" dy="{0 if i == 0 else 1.25}em">{escape(line)}</tspan>'
            for i, line in enumerate(lines)
        )
        self.add(f'<text y="{top:g}" text-anchor="{anchor}"{turn}>{spans}</text>')

    def circle(self, x: float, y: float, radius: float, colour: str, *, dashed: bool = False) -> None:
        """An open circle."""
        dash = ' stroke-dasharray="3 2"' if dashed else ""
        self.add(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="none" stroke="{colour}"'
            f' stroke-width="1.4"{dash}/>'
        )

    def lines(
        self, ends: Iterable[Sequence[float]], colour: str = "currentColor", width: float = 1.0
    ) -> None:
        """Straight lines from `x1, y1` to `x2, y2`."""
        path = "".join(f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" for x1, y1, x2, y2 in ends)
        self.add(f'<path d="{path}" stroke="{colour}" stroke-width="{width:g}" fill="none"/>')

    def svg(self) -> str:
        """The sheet as it is seen; the page has the words for who cannot see it."""
        width, height = self._size
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" aria-hidden="true"'
            f' width="{width}" viewBox="0 0 {width} {height}" font-size="{WORD_PX}" fill="currentColor"'
            f' font-family="system-ui, sans-serif">{"".join(self._parts)}</svg>'
        )


class Plot:
    """Axes in a box of a sheet (left, top, width, height) with their ticks and labels."""

    def __init__(
        self,
        sheet: Sheet,
        box: tuple[float, float, float, float],
        x: tuple[float, float],
        y: tuple[float, float],
        labels: tuple[str, str],
        *,
        log: str = "",
    ) -> None:
        self._sheet, self._box, self._log = sheet, box, log
        self._ends = {"x": self._scaled("x", np.array(x)), "y": self._scaled("y", np.array(y))}
        self._n_named = 0
        left, top, width, height = box
        self._axis_x(ticks(*x, is_log="x" in log))
        self._axis_y(ticks(*y, is_log="y" in log))
        sheet.add(
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" fill="none"'
            f' stroke="currentColor"/>'
        )
        sheet.write(labels[0], left + width / 2, top + height + 36)
        sheet.write(labels[1], left - 48, top + height / 2, turned=True)

    def _axis_x(self, at: Sequence[float]) -> None:
        _, top, _, height = self._box
        places = self.places(np.array(at), np.array([]))[0]
        self._sheet.lines([(p, top, p, top + height) for p in places], "#8884", 1)
        for place, value in zip(places, at, strict=True):
            self._sheet.write(tick_label(value, is_log="x" in self._log), place, top + height + 17)

    def _axis_y(self, at: Sequence[float]) -> None:
        left, _, width, _ = self._box
        places = self.places(np.array([]), np.array(at))[1]
        self._sheet.lines([(left, p, left + width, p) for p in places], "#8884", 1)
        for place, value in zip(places, at, strict=True):
            self._sheet.write(tick_label(value, is_log="y" in self._log), left - 7, place + 4, anchor="end")

    def _scaled(self, axis: str, values: NDArray[np.floating]) -> NDArray[np.float64]:
        if axis not in self._log:
            return np.asarray(values, float)
        return np.asarray(np.log10(np.maximum(np.asarray(values, float), 1e-300)))

    def places(
        self, x: NDArray[np.floating], y: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where values lie on the sheet, kept inside the box."""
        left, top, width, height = self._box
        (x0, x1), (y0, y1) = self._ends["x"], self._ends["y"]
        across = np.clip((self._scaled("x", x) - x0) / (x1 - x0), 0, 1)
        up = np.clip((self._scaled("y", y) - y0) / (y1 - y0), 0, 1)
        return left + across * width, top + (1 - up) * height

    def line(
        self,
        x: NDArray[np.floating],
        y: NDArray[np.floating],
        colour: str,
        *,
        name: str = "",
        dash: str = "",
        fill: str = "none",
        width: float = 1.8,
    ) -> None:
        """Points joined by a line; with `fill`, the area between it and the axis."""
        left, bottom = self.places(np.asarray(x), np.asarray(y)), self._box[1] + self._box[3]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(*left, strict=True))
        if fill != "none" and left[0].size:
            path = f"{left[0][0]:.1f} {bottom:.1f}L{path}L{left[0][-1]:.1f} {bottom:.1f}"
        style = f' stroke-dasharray="{dash}"' if dash else ""
        self._sheet.add(
            f'<path d="M{path}" fill="{fill}" stroke="{colour}" stroke-width="{width:g}"{style}/>'
        )
        if name:
            self._name(name, colour if fill == "none" else fill, style)

    def points(
        self,
        x: NDArray[np.floating],
        y: NDArray[np.floating],
        colour: str,
        *,
        bars: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
        radius: float = 3.0,
    ) -> None:
        """Dots, with bars from the first of `bars` to the second."""
        across, up = self.places(np.asarray(x), np.asarray(y))
        if bars is not None:
            low, high = (self.places(np.asarray(x), np.asarray(end))[1] for end in bars)
            self._sheet.lines(zip(across, low, across, high, strict=True), colour, 1.4)
        dots = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{radius:g}"/>' for a, b in zip(across, up, strict=True)
        )
        self._sheet.add(f'<g fill="{colour}">{dots}</g>')

    def _name(self, name: str, colour: str, style: str) -> None:
        left, top, width, _ = self._box
        x, y = left + width - 14, top + 20 + 18 * self._n_named
        self._n_named += 1
        self._sheet.add(
            f'<path d="M{x - 22:g} {y - 4:g}h22" stroke="{colour}" stroke-width="3" fill="none"{style}/>'
        )
        self._sheet.write(name, x - 30, y, anchor="end")


def ticks(low: float, high: float, *, is_log: bool, most: int = 8) -> list[float]:
    """Round values between two ends, at most `most`: powers of ten and what lies
    between, or steps of 1, 2 or 5."""
    if is_log:
        first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
        step = max(1, -(-(last - first + 1) // most))
        powers = [10.0**k for k in range(first, last + 1, step)]
        if len(powers) > 1:
            return powers
        between = [m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 3, 5, 7)]
        return [value for value in between if low <= value <= high]
    rough = (high - low) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [float(k * step) for k in range(int(np.ceil(low / step - 1e-9)), int(high / step + 1e-9) + 1)]


def tick_label(value: float, *, is_log: bool) -> str:
    """A number as briefly as it can be read; far powers of ten as such."""
    exponent = np.log10(value) if is_log and value > 0 else 0.0
    if abs(exponent) > 3 and abs(exponent - round(exponent)) < 1e-6:
        return "10" + str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value:.10g}".replace("-", "−")
