"""How a matplotlib figure is begun and ended here, and the colours that every picture shares.

Owns these alone. The Agg canvas is used directly: no display, no global state, safe in any thread.
"""

import io
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Dots per inch of every picture.
DPI = 100
#: Blue and orange are told apart by every kind of colour vision.
POSITIVE, NEGATIVE, NEUTRAL = "#d95f02", "#1f78b4", "#444444"
#: zlib's effort: noise does not get smaller by more of it, and frames are noise.
_COMPRESSION = 1


def empty_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty figure of so many inches; without a layout engine, which is slow, axes are placed by hand."""
    figure = Figure(figsize=(width, max(height, 1.0)), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Figure) -> bytes:
    """The figure as it is seen."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": _COMPRESSION})
    return buffer.getvalue()
