"""The triplets of a detection run, from the artifacts of its difference into the artifact store.

Owns which images are read and under which keys pictures are stored; never draws (`triplets` does).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from astrid_workers.curation.rows import ImageKeys
from astrid_workers.curation.triplets import triplet_png
from astrid_workers.found_detections import DetectionSet
from astrid_workers.frame import Float32Image
from astrid_workers.mask import MaskBit
from astrid_workers.storage.artifacts import ArtifactStore
from astrid_workers.storage.fits import frame_from_fits
from astrid_workers.storage.fits_images import image_from_fits


@dataclass(frozen=True, slots=True, eq=False)
class TripletImages:
    """Science, reference and difference on the science grid, NaN where not measured."""

    science: Float32Image
    reference: Float32Image
    difference: Float32Image


@dataclass(frozen=True, slots=True)
class Picture:
    """One detection's picture, not stored yet."""

    detection_id: UUID
    key: str
    png: bytes

    def stored(self, store: ArtifactStore) -> tuple[UUID, tuple[str, str]]:
        """Put it into the store: detection id, and `(key, sha256)` where it stands."""
        artifact = store.put(self.key, self.png)
        return self.detection_id, (artifact.key, artifact.sha256)


def read_images(store: ArtifactStore, keys: ImageKeys) -> TripletImages | None:
    """The three images; None where the science frame or the reference was not kept."""
    if keys.science is None or keys.reference is None:
        return None
    science = frame_from_fits(store.get(*keys.science), keys.science[0])
    is_measured = (science.mask & MaskBit.NO_DATA) == 0
    return TripletImages(
        science=np.where(is_measured, science.science, np.float32(np.nan)),
        reference=image_from_fits(store.get(*keys.reference), keys.reference[0]),
        difference=image_from_fits(store.get(*keys.difference), keys.difference[0]),
    )


def make_pictures(
    images: TripletImages, found: DetectionSet, shown: Sequence[UUID], size_px: int
) -> tuple[Picture, ...]:
    """Pictures of the detections in `shown`; `size_px` is the side of a cutout, made odd."""
    side = size_px + 1 - size_px % 2
    wanted = frozenset(shown)
    return tuple(
        Picture(
            detection.detection_id,
            f"detections/{found.run_id}/images/{detection.detection_id}.png",
            triplet_png(images.science, images.reference, images.difference, detection.x, detection.y, side),
        )
        for detection in found.detections
        if detection.detection_id in wanted
    )
