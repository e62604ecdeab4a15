"""The files of one observation; companions by their names in the payload (`mask`, `bias_frame` …)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from astrid_workers.errors import FrameRejected
from astrid_workers.preprocessing.calibrate import Calibrated, calibrate
from astrid_workers.settings import StorageSettings
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.fits import FitsLimits, read_frame
from astrid_workers.storage.fits_parts import Part, cut_out, matching_part
from astrid_workers.storage.models import Observation
from astrid_workers.storage.records import parts_of_mosaic

#: Names of calibration frames, in payloads and messages.
CALIBRATION_KEYS = ("bias_frame", "dark_frame", "flat_frame")

#: `(key, sha256)` of a file in the artifact store.
StoredFile = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RawFiles:
    """The files of one observation;

    companions by the names of the payload (`mask`, `noise`, `bias_frame` …).
    """

    external_id: str
    image: StoredFile | None
    companions: Mapping[str, StoredFile]
    #: Why the image's companions cannot be used; None where they can.
    trouble: str | None = None
    #: Of a part of a mosaic: its name and place, and those of all parts, to find it in calibration frames.
    part: Part | None = None
    among: tuple[Part, ...] = ()

    @property
    def sha256(self) -> str:
        """Checksum over all of them, by name: what a run's id is derived from."""
        named = {"image": self.image, **self.companions}
        parts = sorted(f"{name}={file[1]}" for name, file in named.items() if file is not None)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def raw_files(session: Session, observation: Observation) -> RawFiles:
    """The files that ingestion stored for the observation, or for the part of a mosaic."""
    image = None
    if observation.frame_key is not None and observation.frame_sha256 is not None:
        image = (observation.frame_key, observation.frame_sha256)
    named = observation.companions.items()
    companions = {name: (file["key"], file["sha256"]) for name, file in named if "key" in file}
    trouble = next((file["trouble"] for _, file in named if "trouble" in file), None)
    part: Part | None = None
    among: tuple[Part, ...] = ()
    if observation.mosaic_id is not None:
        part = _part_of(observation)
        among = tuple(_part_of(row) for row in parts_of_mosaic(session, observation.mosaic_id))
    return RawFiles(observation.external_id, image, companions, trouble, part, among)


def _part_of(observation: Observation) -> Part:
    return Part(observation.part or "", observation.part_hdu or 0)


def for_part(data: bytes, files: RawFiles, name: str) -> bytes:
    """The piece of a calibration frame that belongs to the part `files` are of; all of any other file.

    Raises FrameRejected where the calibration frame is a mosaic without that part.
    """
    if files.part is None:
        return data
    index = matching_part(data, files.part, files.among, name=name)
    return data if index is None else next(cut_out(data, (index,), name=name))


def calibrate_files(files: RawFiles, calibration: Mapping[str, bytes] | None = None) -> Calibrated:
    """Read the image with its mask and noise; calibrate it with the frames it declares, or with others.

    The frame is as it will be read from the store, without the sky that was known before cosmic rays were
    masked: what is measured on it now and later must be the same.
    """
    assert files.image is not None
    if files.trouble is not None:
        raise FrameRejected(files.trouble)
    store, limits = get_store(), FitsLimits.from_settings(StorageSettings())
    given = {name: store.get(*file) for name, file in files.companions.items()}
    frame = read_frame(
        store.get(*files.image),
        name=files.external_id,
        limits=limits,
        mask=given.get("mask"),
        noise=given.get("noise"),
    )
    chosen = given if calibration is None else dict(calibration)
    bias, dark, flat = (
        read_frame(chosen[key], name=f"{key} of {files.external_id}", limits=limits)
        if key in chosen
        else None
        for key in CALIBRATION_KEYS
    )
    calibrated = calibrate(frame, bias=bias, dark=dark, flat=flat)
    return replace(calibrated, frame=replace(calibrated.frame, sky=None))
