"""The fields of `AstridQueue.spec` as the operator reads them: kinds, bounds and defaults.

The schema that the API server uses is `crds/astridqueues.astrid.dev.yaml`, with a description of every field;
a test compares the two field by field. Holds no rule between two fields (`rules.py`) and no code.
"""

from astrid_operator.defaults import DRAMATIQ_NAMESPACE
from astrid_operator.schema import (
    Anything,
    Choice,
    Flag,
    ListOf,
    MapOf,
    Number,
    Object,
    Text,
    Whole,
    WholeOrText,
)

#: The Dramatiq application that workers of ours load.
OUR_APP = "astrid_workers.app"

#: Where the ConfigMap of `middleware` is mounted: a package to import, beside nothing else.
MIDDLEWARE_FOLDER = "/opt/astrid/fleet_middleware"

#: Stages that `OUR_APP` serves: the valid worker types.
WORKER_TYPES = (
    "observation_ingestion",
    "preprocessing",
    "differencing",
    "detection",
    "curation",
    "notification",
)

#: Dramatiq's own form of a queue's name.
QUEUE_NAME = r"[a-zA-Z_][a-zA-Z0-9._-]*"
MODULE = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*(:[A-Za-z_][A-Za-z0-9_]*)?"
IMAGE = r"[A-Za-z0-9][A-Za-z0-9._:/@-]*"
OBJECT_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
DATA_KEY = r"[-._a-zA-Z0-9]+"
LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
QUALIFIED_NAME = rf"({OBJECT_NAME}/)?{_LABEL_NAME}"
EXTENDED_RESOURCE = rf"{OBJECT_NAME}/{_LABEL_NAME}"
RESOURCE_NAME = rf"(cpu|memory|ephemeral-storage|{EXTENDED_RESOURCE})"
#: A Kubernetes quantity in the forms that people write: no sign, no exponent, at most three decimals.
QUANTITY = r"[0-9]{1,12}(\.[0-9]{1,3})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
#: Absolute, without a trailing slash, and not the root itself.
MOUNT_PATH = r"(/[A-Za-z0-9._-]+)+"

_OBJECT_NAME = Text(253, min_length=1, pattern=OBJECT_NAME)
_LABEL_VALUE = Text(63, pattern=LABEL_VALUE)
_QUANTITIES = MapOf(WholeOrText(0, 1_000_000_000_000, QUANTITY, 20), 16)
_KEY_REFERENCE = Object(
    {"name": _OBJECT_NAME, "key": Text(253, min_length=1, pattern=DATA_KEY), "optional": Flag()},
    required=("name", "key"),
)
_WHOLE_REFERENCE = Object({"name": _OBJECT_NAME, "optional": Flag()}, required=("name",))

SCALING = Object(
    {
        "mode": Choice(("Auto", "Manual"), default="Auto"),
        "minReplicas": Whole(0, 10_000, default=0),
        "maxReplicas": Whole(1, 10_000, default=10),
        "targetDrainSeconds": Whole(1, 86_400, default=60),
        "maxQueueAgeSeconds": Whole(1, 604_800, default=120),
        "idleSeconds": Whole(0, 86_400, default=60),
        "expectedTaskSeconds": Number(0.001, 604_800),
        "unschedulableSeconds": Whole(1, 86_400, default=300),
        "weight": Whole(1, 1_000, default=1),
    },
    optional=False,
)

GPU = Object(
    {
        "count": Whole(0, 64, default=0),
        "resourceName": Text(253, min_length=1, pattern=EXTENDED_RESOURCE, default="nvidia.com/gpu"),
    },
    optional=False,
)

TOLERATION = Object(
    {
        "key": Text(317, pattern=f"({QUALIFIED_NAME})?"),
        "operator": Choice(("Exists", "Equal"), default="Equal"),
        "value": _LABEL_VALUE,
        "effect": Choice(("NoSchedule", "PreferNoSchedule", "NoExecute")),
        "tolerationSeconds": Whole(0, 2_147_483_647),
    }
)

SPREAD = Object(
    {
        "maxSkew": Whole(1, 10_000, default=1),
        "topologyKey": Text(317, min_length=1, pattern=QUALIFIED_NAME),
        "whenUnsatisfiable": Choice(("DoNotSchedule", "ScheduleAnyway"), default="ScheduleAnyway"),
        "minDomains": Whole(1, 10_000),
        "nodeAffinityPolicy": Choice(("Honor", "Ignore")),
        "nodeTaintsPolicy": Choice(("Honor", "Ignore")),
    },
    required=("topologyKey",),
)

ENV = Object(
    {
        "name": Text(253, min_length=1, pattern=VARIABLE),
        "value": Text(32_768),
        "valueFrom": Object({"secretKeyRef": _KEY_REFERENCE, "configMapKeyRef": _KEY_REFERENCE}),
    },
    required=("name",),
)

ENV_FROM = Object(
    {
        "prefix": Text(253, pattern=f"({VARIABLE})?"),
        "secretRef": _WHOLE_REFERENCE,
        "configMapRef": _WHOLE_REFERENCE,
    }
)

VOLUME_CLAIM = Object(
    {
        "claimName": _OBJECT_NAME,
        "mountPath": Text(1_024, min_length=1, pattern=MOUNT_PATH),
        "readOnly": Flag(default=False),
    },
    required=("claimName", "mountPath"),
)

MIDDLEWARE = Object(
    {"configMapRef": Object({"name": _OBJECT_NAME}, required=("name",))}, required=("configMapRef",)
)

BROKER = Object(
    {
        "secretRef": Object(
            {
                "name": Text(253, min_length=1, pattern=OBJECT_NAME, default="astrid-redis"),
                "key": Text(253, min_length=1, pattern=DATA_KEY, default="url"),
            },
            optional=False,
        ),
        "namespace": Text(64, min_length=1, pattern=r"[A-Za-z0-9._-]+", default=DRAMATIQ_NAMESPACE),
    },
    optional=False,
)

SPEC = Object(
    {
        "queueName": Text(128, min_length=1, pattern=QUEUE_NAME),
        "workerType": Text(128, min_length=1, pattern=QUEUE_NAME),
        "app": Text(253, min_length=1, pattern=MODULE, default=OUR_APP),
        "middleware": MIDDLEWARE,
        "image": Text(512, min_length=1, pattern=IMAGE),
        "imagePullPolicy": Choice(("Always", "IfNotPresent", "Never"), default="IfNotPresent"),
        "imagePullSecrets": ListOf(Object({"name": _OBJECT_NAME}, required=("name",)), 8, keys=("name",)),
        "enabled": Flag(default=True),
        "paused": Choice(("None", "All", "ScaleIn", "ScaleOut"), default="None"),
        "priority": Whole(1, 1_000, default=5),
        "maxRetries": Whole(0, 1_000, default=3),
        "retryDelaySeconds": Whole(0, 86_400, default=1),
        "maxRetryDelaySeconds": Whole(1, 604_800, default=300),
        "timeoutSeconds": Whole(1, 604_800, default=300),
        "concurrency": Whole(1, 256, default=1),
        "processes": Whole(1, 64, default=1),
        "prefetch": Whole(1, 65_536),
        "replicas": Whole(0, 10_000, default=0),
        "scaling": SCALING,
        "gpu": GPU,
        "resources": Object({"requests": _QUANTITIES, "limits": _QUANTITIES}),
        "nodeSelector": MapOf(_LABEL_VALUE, 16),
        "tolerations": ListOf(TOLERATION, 16),
        "affinity": Object(
            {"nodeAffinity": Anything(2), "podAffinity": Anything(2), "podAntiAffinity": Anything(2)}
        ),
        "topologySpreadConstraints": ListOf(SPREAD, 8, keys=("topologyKey", "whenUnsatisfiable")),
        "priorityClassName": _OBJECT_NAME,
        "podLabels": MapOf(_LABEL_VALUE, 32),
        "podAnnotations": MapOf(Text(4_096), 32),
        "runAsUser": Whole(1, 2_147_483_647),
        "env": ListOf(ENV, 64, keys=("name",)),
        "envFrom": ListOf(ENV_FROM, 8),
        "volumeClaims": ListOf(VOLUME_CLAIM, 8, keys=("mountPath",)),
        "broker": BROKER,
        "deletionPolicy": Choice(("Delete", "Drain"), default="Delete"),
    },
    optional=False,
)
