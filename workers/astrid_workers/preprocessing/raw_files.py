"""The files of one observation; companions by their names in the payload (`mask`, `bias_frame` …)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from astrid_workers.preprocessing.calibrate import Calibrated, calibrate
from astrid_workers.settings import StorageSettings
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.fits import FitsLimits, read_frame
from astrid_workers.storage.models import Observation

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

    @property
    def sha256(self) -> str:
        """Checksum over all of them, by name: what a run's id is derived from."""
        named = {"image": self.image, **self.companions}
        parts = sorted(f"{name}={file[1]}" for name, file in named.items() if file is not None)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def raw_files(observation: Observation) -> RawFiles:
    """The files that ingestion stored for the observation."""
    image = None
    if observation.frame_key is not None and observation.frame_sha256 is not None:
        image = (observation.frame_key, observation.frame_sha256)
    companions = {name: (file["key"], file["sha256"]) for name, file in observation.companions.items()}
    return RawFiles(observation.external_id, image, companions)


def calibrate_files(files: RawFiles, calibration: Mapping[str, bytes] | None = None) -> Calibrated:
    """Read the image with its mask and noise; calibrate it with the frames it declares, or with others."""
    assert files.image is not None
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
    return calibrate(frame, bias=bias, dark=dark, flat=flat)
