"""Pictures that only the demonstration needs: the fleet over time, and how much was recovered.

Owns their layout; frames and triplets are drawn by `report.figures`.
"""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from astrid_workers.demo.recovery import RecoverySummary


def fleet_figure(rows: Sequence[dict[str, Any]], seconds: float) -> bytes:
    """PNG: per queue, outstanding messages (area) and workers (line) against time; rows as in the report."""
    queues = list(dict.fromkeys(row["queue"] for row in rows))
    figure = Figure(figsize=(9.6, 1.15 * max(len(queues), 1) + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for index, queue in enumerate(queues, start=1):
        axes = figure.add_subplot(len(queues), 1, index)
        own = [row for row in rows if row["queue"] == queue]
        times = [row["t"] for row in own] + [seconds]
        waiting = [row["outstanding"] or 0 for row in own]
        members = [row["members"] for row in own]
        axes.fill_between(
            times, [*waiting, waiting[-1]], step="post", color="#c6dbef", label="outstanding messages"
        )
        axes.step(times, [*members, members[-1]], where="post", color="#08519c", lw=1.8, label="workers")
        axes.set_xlim(0, seconds)
        axes.set_ylim(0, max(*waiting, *members, 1) * 1.15)
        axes.set_ylabel(queue.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=8)
        axes.tick_params(labelsize=8, labelbottom=index == len(queues))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if index == 1:
            axes.legend(loc="upper right", ncols=2, fontsize=8, frameon=False)
        if index == len(queues):
            axes.set_xlabel("seconds", fontsize=9)
    return _png(figure)


def recovery_figure(summary: RecoverySummary) -> bytes:
    """PNG: share of the injected transients that was recovered, per bin of S/N, with the counts."""
    figure = Figure(figsize=(9.6, 2.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(1, 1, 1)
    labels = [f"{low:g}–{high:g}" for low, high, _, _ in summary.by_snr]
    shares = [recovered / injected for _, _, injected, recovered in summary.by_snr]
    bars = axes.bar(labels, shares, color="#6baed6")
    for bar, (_, _, injected, recovered) in zip(bars, summary.by_snr, strict=True):
        axes.annotate(
            f"{recovered} of {injected}",
            (bar.get_x() + bar.get_width() / 2, bar.get_height()),
            ha="center",
            va="bottom",
            fontsize=9,
        )
    axes.set_ylim(0, 1.15)
    axes.set_ylabel("recovered")
    axes.set_xlabel("S/N that a matched filter could reach at the place")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
