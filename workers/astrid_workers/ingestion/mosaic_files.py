"""Cutting a mosaic into files of its parts, each with its own piece of every companion.

Owns the keys of these files and what becomes of a part whose header or companion cannot be used: it is kept
with the reason, which preprocessing then says, and the other parts go on. Never decodes a pixel.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from astrid_workers.errors import FrameRejected
from astrid_workers.ingestion.frame_summary import FrameSummary, summary_of
from astrid_workers.storage.artifacts import Artifact, ArtifactStore
from astrid_workers.storage.fits import FitsLimits
from astrid_workers.storage.fits_parts import Part, cut_out, matching_part, parts_of

#: Role of a companion → address it came from and artifact, as `Observation.companions` holds them; one that
#: has no such part is `{url, trouble}`.
Companions = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One part of a mosaic in the store."""

    part: Part
    frame: Artifact
    #: None where its header cannot be used.
    summary: FrameSummary | None
    companions: Companions = field(default_factory=dict)


def store_parts(
    data: bytes, parts: tuple[Part, ...], name: str, folder: str, store: ArtifactStore, limits: FitsLimits
) -> tuple[StoredPart, ...]:
    """Keep a file for each part below `folder`; FrameRejected where the header of no part can be used."""
    stored: list[StoredPart] = []
    refusals: list[FrameRejected] = []
    for part, piece in zip(parts, cut_out(data, (p.index for p in parts), limits, name=name), strict=True):
        summary: FrameSummary | None = None
        try:
            summary = summary_of(piece, name=f"{name}[{part.name}]", limits=limits)
        except FrameRejected as refusal:
            refusals.append(refusal)
        stored.append(StoredPart(part, store.put(f"{folder}/{part.name}/raw.fits", piece), summary))
    if len(refusals) == len(parts):
        raise refusals[0]
    return tuple(stored)


def share_companions(
    companions: Companions,
    stored: tuple[StoredPart, ...],
    keep: Callable[[str, bytes, Part], Artifact],
    store: ArtifactStore,
    limits: FitsLimits,
) -> None:
    """Give each part its piece of every companion that is a mosaic; one with a single image serves all.

    `keep` puts the piece of a role for a part into the store.
    """
    parts = tuple(one.part for one in stored)
    for role, whole in companions.items():
        data = store.get(whole["key"], whole["sha256"])
        if not parts_of(data, limits, name=role):
            for one in stored:
                one.companions[role] = whole
            continue
        for one, piece in zip(stored, _pieces(data, parts, role, limits), strict=True):
            if isinstance(piece, FrameRejected):
                one.companions[role] = {"url": whole["url"], "trouble": str(piece)}
            else:
                one.companions[role] = named(whole["url"], keep(role, piece, one.part))


def named(url: str, artifact: Artifact) -> dict[str, Any]:
    """A companion as its row holds it."""
    return {"url": url, "key": artifact.key, "sha256": artifact.sha256, "size_bytes": artifact.size_bytes}


def _pieces(
    data: bytes, parts: tuple[Part, ...], name: str, limits: FitsLimits
) -> Iterator[bytes | FrameRejected]:
    """The piece for each part, or why there is none."""
    for part in parts:
        try:
            index = matching_part(data, part, parts, name=name)
        except FrameRejected as refusal:
            yield refusal
        else:
            assert index is not None
            yield from cut_out(data, (index,), limits, name=name)
