"""Which kinds of object are looked at, and by which label.

Owns their names and nothing else.
"""

from enum import StrEnum

#: Label of everything that belongs to an AstridQueue: its name.
QUEUE_LABEL = "astrid.dev/queue"


class Kind(StrEnum):
    """Kinds of object that are watched."""

    ASTRID_QUEUE = "AstridQueue"
    DEPLOYMENT = "Deployment"
    POD = "Pod"
    BUDGET = "PodDisruptionBudget"
    QUOTA = "ResourceQuota"
    NODE = "Node"


#: Kinds of which only those with our label are looked at.
LABELLED = (Kind.DEPLOYMENT, Kind.POD, Kind.BUDGET)

#: Kinds that tell only how many devices there are: whoever may not see them does without.
OPTIONAL = (Kind.QUOTA, Kind.NODE)
