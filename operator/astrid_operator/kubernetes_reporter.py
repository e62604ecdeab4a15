"""What a person reads on a cluster: the status of an AstridQueue, and events.

Owns how both are written. Decides neither what they say nor when it is worth a write.
"""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import structlog

from astrid_operator.astrid_queue import API_VERSION, GROUP, KIND
from astrid_operator.errors import ObjectGone, OperatorError
from astrid_operator.fleet import EventType, Subject
from astrid_operator.fleet_view import FIELD_MANAGER, Moment
from astrid_operator.kinds import Kind
from astrid_operator.kubernetes_api import KubernetesApi
from astrid_operator.seen import Seen

log = structlog.get_logger(__name__)


class KubernetesReporter:
    """`Reporter` on a cluster: the status subresource and events."""

    def __init__(self, api: KubernetesApi, seen: Seen, now: Callable[[], Moment]) -> None:
        self._api = api
        self._seen = seen
        self._now = now

    async def status(self, queue: Subject, status: Mapping[str, Any]) -> None:
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": queue.key.name, "namespace": queue.key.namespace, "uid": queue.uid},
            "status": dict(status),
        }
        try:
            self._seen.put(Kind.ASTRID_QUEUE, await self._api.apply_status(queue.key, manifest))
        except ObjectGone:
            self._seen.forget(Kind.ASTRID_QUEUE, queue.key)

    async def event(self, queue: Subject, kind: EventType, reason: str, message: str) -> None:
        try:
            await self._api.create_event(queue.key.namespace, self._event(queue, kind, reason, message))
        except OperatorError as error:
            log.warning("Event not posted", queue=str(queue.key), reason=reason, error=str(error))

    def _event(self, queue: Subject, kind: EventType, reason: str, message: str) -> Mapping[str, Any]:
        now = self._now().wall.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{queue.key.name}.{uuid4().hex[:16]}"},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": queue.key.name,
                "namespace": queue.key.namespace,
                "uid": queue.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": f"{GROUP}/operator",
            "reportingInstance": FIELD_MANAGER,
        }
