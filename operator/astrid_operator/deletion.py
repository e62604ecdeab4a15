"""How an AstridQueue with `deletionPolicy: Drain` goes: held until its tasks have ended, never for longer.

Owns the finalizer, the only one that the operator sets, and its deadline. Pure: the writes are
`kubernetes_fleet.py`'s. An AstridQueue without that policy is never held.
"""

from collections.abc import Mapping
from typing import Any

from astrid_operator.astrid_queue import AstridQueue, DeletionPolicy
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import GRACE_SECONDS

FINALIZER = "astrid.dev/drain"

Manifest = Mapping[str, Any]


def is_leaving(manifest: Manifest) -> bool:
    """Its deletion was asked for."""
    return bool(manifest["metadata"].get("deletionTimestamp"))


def is_held(manifest: Manifest) -> bool:
    """It stays until the operator lets go of it."""
    return FINALIZER in (manifest["metadata"].get("finalizers") or ())


def should_hold(queue: AstridQueue, fleet: FleetState, leaving_seconds: float | None) -> bool:
    """Whether the finalizer should be there; deletion was asked for `leaving_seconds` ago, None: it was not.

    A fleet that leaves has the time of one task and a minute; its pods have their own grace after that.
    """
    if queue.spec.deletion_policy is not DeletionPolicy.DRAIN:
        return False
    if leaving_seconds is None:
        return True
    is_empty = not fleet.current and not fleet.draining
    return not is_empty and leaving_seconds < queue.spec.timeout_seconds + GRACE_SECONDS


def finalizers(manifest: Manifest, *, hold: bool) -> list[str]:
    """All finalizers of the object, with ours or without."""
    others = [each for each in manifest["metadata"].get("finalizers") or () if each != FINALIZER]
    return [*others, FINALIZER] if hold else others
