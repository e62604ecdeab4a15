"""What is written on a pod for those who may end it: the ReplicaSet, the node autoscalers.

Owns the annotations, and when they change: on transitions only, since each change is a write. Pure. A pod
that has been busy for a while is not to be disturbed, and goes last where a ReplicaSet must choose; one that
leaves goes first; all others carry nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

#: Read by ReplicaSets when they shrink: the lower, the sooner it goes. Without it: 0.
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
#: Read by the cluster autoscaler and by Karpenter before they empty a node.
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"

ANNOTATIONS = (DELETION_COST, SAFE_TO_EVICT, DO_NOT_DISRUPT)

#: Seconds of work without a break, and of none, after which it is worth a write to say so.
BUSY_SECONDS = 30.0
IDLE_SECONDS = 30.0
#: The same for work while members are replaced: whoever is busy then goes last.
BUSY_SECONDS_IN_A_ROLL = 2.0

LEAVES: Mapping[str, str] = {DELETION_COST: "-1000"}
BUSY: Mapping[str, str] = {DELETION_COST: "1000", SAFE_TO_EVICT: "false", DO_NOT_DISRUPT: "true"}
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Work:
    """What a pod has done lately, in seconds; both None: it does not say."""

    busy_seconds: float | None = None
    idle_seconds: float | None = None


def is_left_alone(annotations: Mapping[str, str]) -> bool:
    """Nodes are told not to disturb it."""
    return annotations.get(SAFE_TO_EVICT) == "false"


def is_marked(annotations: Mapping[str, str]) -> bool:
    """It is to go before others."""
    return annotations.get(DELETION_COST) == LEAVES[DELETION_COST]


def hints(
    annotations: Mapping[str, str], work: Work, *, leaves: bool, rolls: bool = False
) -> Mapping[str, str]:
    """What the pod should carry of `ANNOTATIONS`; the rest of `annotations` is not looked at.

    `leaves`: it was let go. `rolls`: members of its fleet are being replaced.
    """
    if leaves:
        return LEAVES
    if work.busy_seconds is not None:
        enough = BUSY_SECONDS_IN_A_ROLL if rolls else BUSY_SECONDS
        return BUSY if is_left_alone(annotations) or work.busy_seconds >= enough else NOTHING
    is_rested = work.idle_seconds is not None and work.idle_seconds >= IDLE_SECONDS
    return BUSY if is_left_alone(annotations) and not is_rested else NOTHING


def changes(annotations: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None]:
    """What to merge so that the pod carries `wanted` of `ANNOTATIONS`; empty: it does. None removes."""
    return {name: wanted.get(name) for name in ANNOTATIONS if annotations.get(name) != wanted.get(name)}
