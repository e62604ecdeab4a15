"""What can be measured of a set of detections without knowing the truth.

Owns distributions and consistency checks; never reads a row. Where nothing was measured the value is None:
precision and its kin need labelled truth, which a night's data do not have.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from astrid_workers.found_detections import FoundDetection

Distribution = dict[str, float | None]

LABELS = frozenset({"supernova", "variable", "transient", "unknown", "artifact"})
#: Confidences from which a detection counts as of high and of medium confidence.
HIGH_CONFIDENCE, MEDIUM_CONFIDENCE = 0.8, 0.5


def distribution(values: Sequence[float], suffix: str = "") -> Distribution:
    """`mean, std, min, max` (population standard deviation); all None for no values."""
    names = [f"{name}{suffix}" for name in ("mean", "std", "min", "max")]
    if not values:
        return dict.fromkeys(names)
    array = np.asarray(values, dtype=np.float64)
    return dict(zip(names, map(float, (array.mean(), array.std(), array.min(), array.max())), strict=True))


def density_per_mpix(count: int, width_px: int | None, height_px: int | None) -> float | None:
    """Detections per 10⁶ pixels of the frame; None where its shape is not known."""
    return None if not width_px or not height_px else count / (width_px * height_px / 1e6)


def clustering(x: Sequence[float], y: Sequence[float], area_px: float | None) -> float | None:
    """Clark and Evans (1954): mean distance to the nearest neighbour over that of a random scatter of the
    same density.

    1 is random, below 1 clustered, above 1 evenly spread; None for fewer than two or without an area. No
    correction for the edge.
    """
    if len(x) < 2 or not area_px:
        return None
    expected = 0.5 / math.sqrt(len(x) / area_px)
    return float(_nearest_distances(np.asarray(x), np.asarray(y)).mean() / expected)


def _nearest_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial import cKDTree

    points = np.column_stack([x, y])
    distances, _ = cKDTree(points).query(points, k=2)
    return np.asarray(distances[:, 1], dtype=np.float64)


def area_px(detection: FoundDetection) -> float | None:
    """Area of the disc whose diameter is the detection's FWHM, in pixels; None where it has none."""
    return None if detection.fwhm_px is None else math.pi * (detection.fwhm_px / 2) ** 2


def bounding_box(detection: FoundDetection) -> list[float] | None:
    """`[x_min, y_min, x_max, y_max]`, one FWHM each way from the position; None where it has no FWHM."""
    reach = detection.fwhm_px
    if reach is None:
        return None
    return [detection.x - reach, detection.y - reach, detection.x + reach, detection.y + reach]


def coordinates_are_valid(
    detections: Sequence[FoundDetection], width_px: int | None, height_px: int | None
) -> bool:
    """Whether all positions lie in the frame and all RA and Dec, where there are any, on the sky."""
    return all(_in_frame(d, width_px, height_px) and _on_sky(d) for d in detections)


def _in_frame(d: FoundDetection, width_px: int | None, height_px: int | None) -> bool:
    fits_x = width_px is None or -0.5 <= d.x <= width_px - 0.5
    return fits_x and (height_px is None or -0.5 <= d.y <= height_px - 0.5)


def _on_sky(d: FoundDetection) -> bool:
    if d.ra_deg is None or d.dec_deg is None:
        return d.ra_deg is d.dec_deg
    return 0 <= d.ra_deg < 360 and -90 <= d.dec_deg <= 90


def boxes_are_valid(detections: Sequence[FoundDetection]) -> bool | None:
    """Whether every box has a positive extent; None where no detection has a box."""
    boxes = [box for box in map(bounding_box, detections) if box is not None]
    return all(x0 < x1 and y0 < y1 for x0, y0, x1, y1 in boxes) if boxes else None


def confidences_are_valid(detections: Sequence[FoundDetection]) -> bool | None:
    """Whether every confidence lies in [0, 1]; None where there is none."""
    known = [d.confidence for d in detections if d.confidence is not None]
    return all(0 <= confidence <= 1 for confidence in known) if known else None


def labels_are_valid(detections: Sequence[FoundDetection]) -> bool | None:
    """Whether every label is one that we know; None where there is none."""
    known = [d.label for d in detections if d.label is not None]
    return all(label in LABELS for label in known) if known else None


def confidence_counts(detections: Sequence[FoundDetection]) -> dict[str, int | None]:
    """How many are of high, medium and low confidence; None where the model gave none."""
    known = [d.confidence for d in detections if d.confidence is not None]
    if detections and not known:
        return {"high_confidence": None, "medium_confidence": None, "low_confidence": None}
    return {
        "high_confidence": sum(c >= HIGH_CONFIDENCE for c in known),
        "medium_confidence": sum(MEDIUM_CONFIDENCE <= c < HIGH_CONFIDENCE for c in known),
        "low_confidence": sum(c < MEDIUM_CONFIDENCE for c in known),
    }


def label_counts(detections: Sequence[FoundDetection]) -> dict[str, int | None]:
    """How many are transient, variable and artifact; None where the model gave no labels."""
    known = [d.label for d in detections if d.label is not None]
    is_unknown = bool(detections) and not known
    return {
        f"{label}_detections": None if is_unknown else known.count(label)
        for label in ("transient", "variable", "artifact")
    }
