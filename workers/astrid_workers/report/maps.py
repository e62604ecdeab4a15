"""What varies over the frame and what is left at stars, as SVG: PSFs, registration, gain, residuals.

Owns their layout; the values are measured elsewhere.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.star_residuals import StarResiduals
from astrid_workers.imaging.photometric_match import PhotometricMatch
from astrid_workers.imaging.psf import Psf
from astrid_workers.imaging.psf_shape import psf_shapes
from astrid_workers.report.drawing import NEGATIVE, NEUTRAL, POSITIVE, TITLE_PX, Plot, Sheet
from astrid_workers.report.figures import FRAME_GAP, WIDTH
from astrid_workers.report.stretch import Panel

Floats = NDArray[np.float64]

#: Cells along a map's longer side; a frame's longer side on the sheet, pixels; room for the words below it.
CELLS, MAP_PX, WORDS_PX = 9, 380, 44
#: Points that are drawn at most.
MOST_POINTS = 1500


def psf_map_figure(psfs: Sequence[tuple[str, Psf]]) -> str:
    """Per frame its PSF's width as colour, with sticks along the longer axis as long as the ellipticity."""
    frames = []
    for title, psf in psfs:
        x, y = grid_of(psf.frame_shape)
        shapes = psf_shapes(psf, x.ravel(), y.ravel())
        longest = max(float(shapes.ellipticity.max()), 0.01)
        length = 0.8 * max(psf.frame_shape) / CELLS * shapes.ellipticity / longest
        sticks = np.column_stack([np.cos(shapes.angle_rad), np.sin(shapes.angle_rad)]) * length[:, None]
        words = (
            f"FWHM {shapes.fwhm_px.min():.2f} (dark) to {shapes.fwhm_px.max():.2f} px (bright);\n"
            f"longest stick: ellipticity {shapes.ellipticity.max():.3f}"
        )
        panel = Panel(shapes.fwhm_px.reshape(x.shape), title, "range")
        frames.append((panel, x.ravel(), y.ravel(), sticks, words))
    return _maps(frames, psfs[0][1].frame_shape, centred=True)


def shift_map_figure(match: PhotometricMatch) -> str:
    """What registration left over, which the subtraction undoes, as arrows; and the gain's map."""
    x, y = grid_of(match.frame_shape)
    moves = match.moves(x.ravel(), y.ravel())
    local = np.array([match.at(a, b)[0] for a, b in zip(x.ravel(), y.ravel(), strict=True)])
    gain = local.reshape(x.shape)
    longest = max(float(np.hypot(moves[:, 1], moves[:, 2]).max()), 1e-6)
    arrows = 0.9 * max(match.frame_shape) / CELLS * moves[:, 1:] / longest
    noise = np.hypot(*match.astrometric_noise_px)
    far = Panel(
        np.hypot(moves[:, 1], moves[:, 2]).reshape(x.shape), "residual shift (arrows) and its size", "range"
    )
    shift_words = (
        f"longest arrow: {longest:.3f} px (exaggerated); beyond this map the\n"
        f"stars scatter by {noise:.3f} px, from {match.n_sources} matched sources"
    )
    gain_words = (
        f"{gain.min():.4f} (dark) to {gain.max():.4f} (bright), science over reference;\n"
        f"scatter of the sources about it: {100 * match.gain_scatter:.2f} %"
    )
    empty = np.zeros((0, 2))
    frames = [
        (far, x.ravel(), y.ravel(), arrows, shift_words),
        (Panel(gain, "gain", "range"), match.x, match.y, empty, gain_words),
    ]
    return _maps(frames, match.frame_shape, centred=False)


def residuals_figure(left: StarResiduals) -> str:
    """The stacked star and what is left of it; the score at each star against its light."""
    side = 210
    sheet = Sheet(WIDTH, TITLE_PX + side + WORDS_PX)
    sheet.panel(Panel(left.star, "stack of stars", "decades"), (0, TITLE_PX, side, side))
    limit = max(0.01, float(np.nanmax(np.abs(left.left))))
    box = (side + FRAME_GAP, TITLE_PX, side, side)
    sheet.panel(Panel(left.left, f"what is left (±{100 * limit:.1f} % of peak)", "signed", limit), box)
    light, score = left.light_sigma[:MOST_POINTS], left.score[:MOST_POINTS]
    ends = (float(light.min()) * 0.9, float(light.max()) * 1.1)
    reach = float(np.clip(np.ceil(np.abs(score).max()), 5, 12))
    start = 2 * (side + FRAME_GAP) + 70
    plot = Plot(
        sheet,
        (start, TITLE_PX, WIDTH - start - 12, side - 6),
        ends,
        (-reach, reach),
        ("light subtracted at the star / sigma", "score / sigma"),
        log="x",
    )
    for sigma in (-3.0, 3.0):
        plot.line(np.array(ends), np.array([sigma, sigma]), NEUTRAL, dash="5 4", width=1.2)
    plot.points(light, score, NEGATIVE, radius=2.0)
    return sheet.svg()


def grid_of(shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """x and y of the middles of about square cells, `(rows, columns)` each."""
    cell = max(shape) / CELLS
    rows, columns = (max(1, round(side / cell)) for side in shape)
    x = (np.arange(columns) + 0.5) * shape[1] / columns - 0.5
    y = (np.arange(rows) + 0.5) * shape[0] / rows - 0.5
    grid_x, grid_y = np.meshgrid(x, y)
    return grid_x, grid_y


def _maps(
    frames: Sequence[tuple[Panel, Floats, Floats, Floats, str]],
    shape: tuple[int, int],
    *,
    centred: bool,
) -> str:
    """Maps side by side: colours, strokes at places (arrows where they are not `centred`), words below."""
    scale = MAP_PX / max(shape)
    wide, tall = shape[1] * scale, shape[0] * scale
    sheet = Sheet(WIDTH, round(TITLE_PX + tall + WORDS_PX))
    for number, (panel, x, y, strokes, words) in enumerate(frames):
        left = number * WIDTH / 2 + (WIDTH / 2 - wide) / 2
        sheet.panel(panel, (left, TITLE_PX, wide, tall))
        at_x, at_y = left + (x + 0.5) * scale, TITLE_PX + tall - (y + 0.5) * scale
        sheet.write(words, left + wide / 2, TITLE_PX + tall + 17)
        if not len(strokes):
            dots = zip(at_x[:MOST_POINTS], at_y[:MOST_POINTS], strict=True)
            sheet.lines(((a - 1.5, b, a + 1.5, b) for a, b in dots), POSITIVE, 3)
            continue
        dx, dy = strokes[:, 0] * scale, -strokes[:, 1] * scale
        if centred:
            ends = np.column_stack([at_x - dx / 2, at_y - dy / 2, at_x + dx / 2, at_y + dy / 2])
        else:
            ends = np.column_stack([at_x, at_y, at_x + dx, at_y + dy])
            sheet.lines(((a - 2, b, a + 2, b) for a, b in zip(at_x, at_y, strict=True)), "#ffffff", 4)
        sheet.lines(ends, "#ffffff", 3.2)
        sheet.lines(ends, POSITIVE, 1.8)
    return sheet.svg()
