"""The handlers that kopf calls: each puts what a watch told where the loop finds it.

The only module with kopf decorators. Handlers decide nothing, ask nobody and write nothing; there are none
for create, update or delete, no timers and no daemons, so that kopf leaves no annotation and no finalizer.
"""

from collections.abc import Callable, Sequence
from time import time
from typing import Any

import kopf

from astrid_operator.astrid_queue import GROUP, PLURAL, VERSION, QueueKey
from astrid_operator.kubernetes_fleet import Credentials
from astrid_operator.seen import QUEUE_LABEL, Kind, Manifest, Seen

#: What a watch serves: group, version, plural.
RESOURCES: dict[Kind, tuple[str, str, str]] = {
    Kind.ASTRID_QUEUE: (GROUP, VERSION, PLURAL),
    Kind.DEPLOYMENT: ("apps", "v1", "deployments"),
    Kind.POD: ("", "v1", "pods"),
    Kind.BUDGET: ("policy", "v1", "poddisruptionbudgets"),
}

#: Seconds after which the server ends a watch, which is then begun anew: no stream can be dead for longer.
WATCH_SECONDS = 600


def registry(
    seen: Seen,
    *,
    edited: Callable[[QueueKey], None],
    drifted: Callable[[QueueKey], None],
    watched: Callable[[str, float], None],
    login: Callable[[], Any],
) -> kopf.OperatorRegistry:
    """Handlers for all kinds: `edited` for an AstridQueue whose spec changed, `drifted` for its workload."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    async def _login(**_: Any) -> kopf.ConnectionInfo:
        return _connection(await login())

    def _watch(kind: Kind) -> None:
        @kopf.on.event(*RESOURCES[kind], id=kind.value, registry=found)
        async def _told(*, event: Any, **_: Any) -> None:
            watched(kind.value, time())
            key, is_edit = take(seen, kind, event)
            if key is not None and kind is not Kind.POD:
                (edited if is_edit else drifted)(key)

    for each in Kind:
        _watch(each)
    return found


def take(seen: Seen, kind: Kind, event: dict[str, Any]) -> tuple[QueueKey | None, bool]:
    """Take one watch event over; the AstridQueue that it is news for, and whether a person edited that."""
    manifest = event["object"]
    if event["type"] == "DELETED":
        return seen.drop(kind, manifest), kind is Kind.ASTRID_QUEUE
    if kind is not Kind.ASTRID_QUEUE:
        return seen.put(kind, manifest), False
    before = seen.get(kind, QueueKey(manifest["metadata"]["namespace"], manifest["metadata"]["name"]))
    key = seen.put(kind, manifest)
    return (
        (key, True) if before is None or _spec_version(before) != _spec_version(manifest) else (None, False)
    )


def settings(namespaces: Sequence[str]) -> kopf.OperatorSettings:
    """kopf as informer and nothing else."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.peering.standalone = True
    found.scanning.disabled = bool(namespaces)
    found.watching.server_timeout = WATCH_SECONDS
    found.watching.connect_timeout = 10
    found.networking.request_timeout = 60
    found.process.ultimate_exiting_timeout = 20
    for kind in (Kind.DEPLOYMENT, Kind.POD, Kind.BUDGET):
        found.watching.label_selectors[RESOURCES[kind]] = QUEUE_LABEL
    return found


def _spec_version(manifest: Manifest) -> tuple[Any, ...]:
    metadata = manifest["metadata"]
    return metadata.get("uid"), metadata.get("generation"), metadata.get("deletionTimestamp")


def _connection(credentials: Credentials) -> kopf.ConnectionInfo:
    scheme, _, token = (credentials.authorization or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=credentials.server,
        ca_path=credentials.ca_path,
        ca_data=credentials.ca_data,
        insecure=credentials.insecure,
        certificate_path=credentials.certificate_path,
        private_key_path=credentials.private_key_path,
        scheme=scheme or None,
        token=token or None,
    )
