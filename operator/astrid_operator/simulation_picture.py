"""The picture of a simulation as PNG. The only module that draws; matplotlib is imported when it is asked to.

The operator's image does not hold matplotlib: there, and wherever it is missing, PictureImpossible says so.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrid_operator.errors import PersonMustAct
from astrid_operator.simulation import QueueOutcome
from astrid_operator.simulation_report import picture_spans

#: Stretches of time that the picture resolves.
RESOLUTION = 600

_HOUR = 3600.0


class PictureImpossible(PersonMustAct):
    """No picture can be made here; the sentence says what is missing."""

    reason = "NoPicture"


def save_picture(outcomes: Sequence[QueueOutcome], path: Path) -> None:
    """Draw messages that wait or are delayed above members and busy threads; raises PictureImpossible."""
    figure = _figure()
    drawn = picture_spans(outcomes, RESOLUTION)
    hours = [span.at / _HOUR for span in drawn]
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.4))
    upper.fill_between(hours, [span.waiting for span in drawn], step="post", color="#c26a3d", linewidth=0)
    upper.set_ylabel("waiting messages")
    if any(span.delayed for span in drawn):
        delayed = [span.delayed for span in drawn]
        upper.step(hours, delayed, where="post", color="#6b5b95", label="delayed", lw=1.0)
        upper.set_ylabel("waiting, delayed messages")
        upper.legend(frameon=False, loc="upper right")
    lower.fill_between(
        hours, [span.members for span in drawn], step="post", color="#a8bfd6", label="members", linewidth=0
    )
    lower.step(
        hours, [span.running for span in drawn], where="post", color="#1d4e79", label="running tasks", lw=1.0
    )
    lower.set_ylabel("members, tasks")
    lower.set_xlabel("hours")
    lower.legend(frameon=False, loc="upper right")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise PictureImpossible(f"{path} cannot be written: {error}") from error


def _figure() -> Any:
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise PictureImpossible(
            "--picture needs matplotlib, which is not installed here (pip install matplotlib); "
            "without --picture the same is drawn in the terminal"
        ) from error
    return figures.Figure(figsize=(9, 5))
