"""Fleets as Deployments: the module that writes to the API server.

Owns every request but the Lease's, the order in which a Deployment comes to be, and when an object differs
from what it should be. Decides nothing about sizes; knows of objects only what `Seen` holds, so that the API
is never polled.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import structlog
from kubernetes.aio import client, config

from astrid_operator.astrid_queue import API_VERSION, GROUP, KIND, PLURAL, VERSION, AstridQueue, QueueKey
from astrid_operator.deletion import finalizers, is_held, is_leaving, should_hold
from astrid_operator.desired import OperatorDefaults, desired_deployment, desired_pdb, max_unavailable
from astrid_operator.errors import (
    LeadershipLost,
    NameTaken,
    NoCluster,
    ObjectGone,
    OperatorError,
    StillLeaving,
)
from astrid_operator.fleet import EventType, FleetState, Subject
from astrid_operator.fleet_view import (
    FIELD_MANAGER,
    REPLICAS_MANAGER,
    Moment,
    fleet_state,
    is_half_created,
    member,
    replicas_are_held,
)
from astrid_operator.kubernetes_answers import Response, answer
from astrid_operator.pod_members import PodMembers
from astrid_operator.pod_retirement import PodRetirement, Retired
from astrid_operator.presence import MemberSaid
from astrid_operator.quiesce import Conversation
from astrid_operator.scaling_values import MembersSeen
from astrid_operator.seen import LABELLED, QUEUE_LABEL, Kind, Seen

log = structlog.get_logger(__name__)

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

#: Seconds that one request may take.
REQUEST_SECONDS = 15.0
#: Writes that are under way at a time: enough to make hundreds of fleets quickly, few enough to be fair. With
#: 64 the making of 300 fleets left so little of a small API server that the Lease was lost.
WRITES_AT_A_TIME = 16
#: Sizes have a way of their own: they are small, and wait for nothing that is only told.
SIZES_AT_A_TIME = 48
#: Objects per page of a list.
PAGE = 500

#: Annotations that the Deployment's own controller writes.
_CONTROLLER_ANNOTATIONS = "deployment.kubernetes.io/"

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the API server is and how to be let in, for the informer, which speaks HTTP itself."""

    server: str
    ca_path: str | None
    ca_data: str | bytes | None
    insecure: bool
    certificate_path: str | None
    private_key_path: str | None
    authorization: str | None


async def connect() -> client.ApiClient:
    """A client for the cluster that KUBECONFIG names, else the one this pod runs in, else ~/.kube/config."""
    return client.ApiClient(await _configuration())


async def credentials() -> Credentials:
    """The same choice as `connect`, read afresh: tokens of pods are replaced every hour."""
    found = await _configuration()
    return Credentials(
        server=found.host,
        ca_path=found.ssl_ca_cert,
        ca_data=found.ca_cert_data,
        insecure=not found.verify_ssl,
        certificate_path=found.cert_file,
        private_key_path=found.key_file,
        authorization=await found.get_api_key_with_prefix("BearerToken", "authorization"),
    )


async def _configuration() -> client.Configuration:
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = 2 * WRITES_AT_A_TIME + SIZES_AT_A_TIME
    named = os.environ.get("KUBECONFIG")
    try:
        if named or not os.environ.get("KUBERNETES_SERVICE_HOST"):
            load: Callable[..., Awaitable[Any]] = config.load_kube_config
            await load(named or None, client_configuration=configuration, persist_config=False)
        else:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        message = f"No cluster is known: set KUBECONFIG, or run in a pod ({error})"
        raise NoCluster(message) from error
    return configuration


class KubernetesApi:
    """The requests that the operator makes: raw documents in and out, failures as our own errors."""

    def __init__(self, api: client.ApiClient, may_write: Callable[[], bool]) -> None:
        self._apps = client.AppsV1Api(api)
        self._policy = client.PolicyV1Api(api)
        self._core = client.CoreV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        self._may_write = may_write
        self._slots = asyncio.Semaphore(WRITES_AT_A_TIME)
        self._size_slots = asyncio.Semaphore(SIZES_AT_A_TIME)

    def check_leads(self) -> None:
        """Raise LeadershipLost where nothing may be written, be it here or to a broker."""
        if not self._may_write():
            message = "not the leader: nothing may be written"
            raise LeadershipLost(message)

    async def read_deployment(self, key: QueueKey) -> dict[str, Any]:
        read = self._apps.read_namespaced_deployment_without_preload_content
        return await answer(read(key.name, key.namespace, _request_timeout=REQUEST_SECONDS))

    async def read_budget(self, key: QueueKey) -> dict[str, Any]:
        read = self._policy.read_namespaced_pod_disruption_budget_without_preload_content
        return await answer(read(key.name, key.namespace, _request_timeout=REQUEST_SECONDS))

    async def apply_deployment(
        self, key: QueueKey, manifest: Manifest, manager: str = FIELD_MANAGER
    ) -> dict[str, Any]:
        patch = self._apps.patch_namespaced_deployment_without_preload_content
        return await self._write(patch, key.name, key.namespace, manifest, **_applied_by(manager))

    async def apply_budget(self, key: QueueKey, manifest: Manifest) -> dict[str, Any]:
        patch = self._policy.patch_namespaced_pod_disruption_budget_without_preload_content
        return await self._write(patch, key.name, key.namespace, manifest, **_applied_by(FIELD_MANAGER))

    async def scale_deployment(self, key: QueueKey, replicas: int) -> dict[str, Any]:
        patch = self._apps.patch_namespaced_deployment_scale_without_preload_content
        body = {"spec": {"replicas": replicas}}
        options: dict[str, Any] = {"field_manager": FIELD_MANAGER, "_content_type": MERGE}
        return await self._write(patch, key.name, key.namespace, body, slots=self._size_slots, **options)

    async def patch_finalizers(self, key: QueueKey, live: Manifest, names: list[str]) -> dict[str, Any]:
        """Set the finalizers of an AstridQueue that is still as `live` says; raises Conflict."""
        patch = self._custom.patch_namespaced_custom_object_without_preload_content
        path = (GROUP, VERSION, key.namespace, PLURAL, key.name)
        version = live["metadata"]["resourceVersion"]
        body = {"metadata": {"finalizers": names, "resourceVersion": version}}
        options: dict[str, Any] = {"field_manager": FIELD_MANAGER, "_content_type": MERGE}
        return await self._write(patch, *path, body, **options)

    async def apply_status(self, key: QueueKey, manifest: Manifest) -> dict[str, Any]:
        patch = self._custom.patch_namespaced_custom_object_status_without_preload_content
        path = (GROUP, VERSION, key.namespace, PLURAL, key.name)
        return await self._write(patch, *path, manifest, **_applied_by(FIELD_MANAGER))

    async def annotate_pod(self, pod: Manifest, annotations: Mapping[str, str | None]) -> dict[str, Any]:
        """Merge `annotations` (None removes) into those of `pod`, and of no successor of its name."""
        patch = self._core.patch_namespaced_pod_without_preload_content
        metadata = pod["metadata"]
        body = {"metadata": {"uid": metadata["uid"], "annotations": dict(annotations)}}
        options: dict[str, Any] = {"field_manager": FIELD_MANAGER, "_content_type": MERGE}
        return await self._write(patch, metadata["name"], metadata["namespace"], body, **options)

    async def create_event(self, namespace: str, event: client.CoreV1Event) -> dict[str, Any]:
        create = self._core.create_namespaced_event_without_preload_content
        return await self._write(create, namespace, event, field_manager=FIELD_MANAGER)

    async def list_objects(self, kind: Kind, namespace: str | None) -> list[dict[str, Any]]:
        """Every object of `kind` that is looked at, in one namespace or (None) in all."""
        path: tuple[str, ...] = () if namespace is None else (namespace,)
        options: dict[str, Any] = {"label_selector": QUEUE_LABEL} if kind in LABELLED else {}
        if kind is Kind.ASTRID_QUEUE:
            path = (GROUP, VERSION, *path, PLURAL)
        method = self._lister(kind, everywhere=namespace is None)
        found: list[dict[str, Any]] = []
        token: str | None = None
        while token is None or token:
            page = await answer(
                method(*path, **options, limit=PAGE, _continue=token, _request_timeout=REQUEST_SECONDS)
            )
            found += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue") or ""
        return found

    def _lister(self, kind: Kind, *, everywhere: bool) -> Callable[..., Awaitable[Response]]:
        apps, core, policy, custom = self._apps, self._core, self._policy, self._custom
        if kind is Kind.ASTRID_QUEUE:
            if everywhere:
                return custom.list_cluster_custom_object_without_preload_content
            return custom.list_namespaced_custom_object_without_preload_content
        if kind is Kind.DEPLOYMENT:
            if everywhere:
                return apps.list_deployment_for_all_namespaces_without_preload_content
            return apps.list_namespaced_deployment_without_preload_content
        if kind is Kind.POD:
            if everywhere:
                return core.list_pod_for_all_namespaces_without_preload_content
            return core.list_namespaced_pod_without_preload_content
        if kind is Kind.NODE:
            return core.list_node_without_preload_content
        if kind is Kind.QUOTA:
            if everywhere:
                return core.list_resource_quota_for_all_namespaces_without_preload_content
            return core.list_namespaced_resource_quota_without_preload_content
        if everywhere:
            return policy.list_pod_disruption_budget_for_all_namespaces_without_preload_content
        return policy.list_namespaced_pod_disruption_budget_without_preload_content

    async def _write(
        self,
        method: Callable[..., Awaitable[Response]],
        *arguments: Any,
        slots: asyncio.Semaphore | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Every write passes here: none is made by a process that may have lost the Lease."""
        async with slots or self._slots:
            self.check_leads()
            return await answer(method(*arguments, _request_timeout=REQUEST_SECONDS, **options))


def _applied_by(manager: str) -> dict[str, Any]:
    return {"field_manager": manager, "force": True, "_content_type": APPLY}


class KubernetesFleet:
    """`Fleet` on a cluster: a Deployment and a PodDisruptionBudget for each AstridQueue."""

    def __init__(
        self,
        api: KubernetesApi,
        seen: Seen,
        defaults: OperatorDefaults,
        now: Callable[[], Moment],
        conversation: Conversation | None = None,
        retired: Retired = lambda _key, _as_chosen: None,
    ) -> None:
        self._api = api
        self._seen = seen
        self._defaults = defaults
        self._now = now
        self._members = PodMembers(seen, self._monotonic)
        self._retirement = PodRetirement(
            api, seen, self._members, conversation or Conversation(), self._monotonic, retired
        )
        #: What each object was like after it was last applied, and by which manifest.
        self._applied: dict[tuple[Kind, QueueKey], tuple[str, str]] = {}
        #: Generation of each Deployment after its shape was last applied.
        self._shaped_at: dict[QueueKey, int] = {}
        #: What each fleet was last asked to be.
        self._shaped: dict[QueueKey, AstridQueue] = {}

    async def observe(self, key: QueueKey) -> FleetState:
        queue, deployment = self._seen.get(Kind.ASTRID_QUEUE, key), self._seen.get(Kind.DEPLOYMENT, key)
        if deployment is not None and _controller(deployment).get("uid") not in (None, _uid(queue)):
            return FleetState()
        state = fleet_state(deployment, self._seen.pods(key), self._now(), self._shaped_at.get(key))
        self._retirement.saw(key, state.members)
        return replace(state, needs_care=self._needs_care(key, state)) if state.exists else state

    async def ensure(self, queue: AstridQueue, replicas: int = 0) -> None:
        await self._hold(queue)
        if queue.deletion_requested_at is not None:
            return
        self._shaped[queue.key] = queue
        await self._ensure_deployment(queue, replicas)
        await self._ensure_budget(queue)

    async def scale_to(self, key: QueueKey, replicas: int) -> None:
        scale = await self._api.scale_deployment(key, replicas)
        self._seen.rescaled(
            key, int(scale["spec"].get("replicas") or 0), scale["metadata"]["resourceVersion"]
        )

    async def tend(self, queue: AstridQueue, replicas: int, *, whoever: bool) -> int | None:
        self._api.check_leads()
        state = await self.observe(queue.key)
        step = await self._retirement.look(queue, state, replicas, whoever=whoever)
        if step.replicas < state.desired:
            await self.scale_to(queue.key, step.replicas)
            self._retirement.lowered(queue.key, step, state.members)
        if self._budget_is_old(queue.key):
            await self._ensure_budget(queue)
        return step.replicas if step.replicas < state.desired else None

    async def remove(self, key: QueueKey) -> None:
        """Owner references do the work; an AstridQueue that nobody understands is let go."""
        live = self._seen.get(Kind.ASTRID_QUEUE, key)
        if live is not None and is_leaving(live) and is_held(live):
            try:
                await self._write_finalizers(key, live, hold=False)
            except OperatorError as error:
                log.warning("AstridQueue not let go", queue=str(key), error=str(error))
        self._retirement.forget(key)
        self._shaped_at.pop(key, None)
        self._shaped.pop(key, None)
        for kind in (Kind.DEPLOYMENT, Kind.BUDGET):
            self._applied.pop((kind, key), None)

    # ------------------------------------------------------------------ what members say

    def heard(self, key: QueueKey, said: Mapping[str, MemberSaid] | None) -> None:
        """Take in what members say of themselves; None: nobody could be heard."""
        self._members.heard(key, said)

    def asks(self, key: QueueKey) -> bool:
        """Somebody of the queue may have been asked to leave."""
        return self._members.asks(key)

    def heard_asked(self, key: QueueKey, processes: frozenset[str]) -> None:
        """Take in which processes are asked to leave."""
        self._members.heard_asked(key, processes)

    def seen(self, key: QueueKey, running: int = 0) -> MembersSeen | None:
        """What the members do; None: they do not say, or cannot be asked to leave one by one."""
        moment = self._now()
        return self._members.seen(key, [member(pod, moment) for pod in self._seen.pods(key)], running)

    def _needs_care(self, key: QueueKey, state: FleetState) -> bool:
        return self._retirement.needs_care(key, state) or self._budget_is_old(key)

    def _budget_is_old(self, key: QueueKey) -> bool:
        """What evictions may take is not what it should be by what the pods do now."""
        live, shaped = self._seen.get(Kind.BUDGET, key), self._shaped.get(key)
        if live is None or shaped is None:
            return False
        wanted = max_unavailable(shaped, works=self._members.left_alone(key))
        return bool((live.get("spec") or {}).get("maxUnavailable") != wanted)

    def _monotonic(self) -> float:
        return self._now().monotonic

    # ------------------------------------------------------------------ shape

    async def _hold(self, queue: AstridQueue) -> None:
        """Let the AstridQueue not vanish before its tasks have ended, or let go of it."""
        live = self._seen.get(Kind.ASTRID_QUEUE, queue.key)
        if live is None:
            return
        asked_at = live["metadata"].get("deletionTimestamp")
        moment, fleet = self._now(), await self.observe(queue.key)
        leaving_seconds = moment.monotonic - moment.monotonic_of(asked_at) if asked_at else None
        hold = should_hold(queue, fleet, leaving_seconds)
        if hold != is_held(live) and not (hold and asked_at):
            await self._write_finalizers(queue.key, live, hold=hold)

    async def _write_finalizers(self, key: QueueKey, live: Manifest, *, hold: bool) -> None:
        try:
            found = await self._api.patch_finalizers(key, live, finalizers(live, hold=hold))
        except ObjectGone:
            self._seen.forget(Kind.ASTRID_QUEUE, key)
        else:
            self._seen.put(Kind.ASTRID_QUEUE, found)

    async def _ensure_deployment(self, queue: AstridQueue, replicas: int) -> None:
        key, manifest = queue.key, desired_deployment(queue, self._defaults)
        live = self._seen.get(Kind.DEPLOYMENT, key) or await _if_there(self._api.read_deployment(key))
        if live is None:
            live = await self._api.apply_deployment(key, _with_replicas(manifest, replicas))
            self._seen.put(Kind.DEPLOYMENT, live)
        _refuse_foreign(live, queue)
        if is_half_created(live) and not replicas_are_held(live):
            only = _replicas_alone(live)
            live = await self._api.apply_deployment(key, only, manager=REPLICAS_MANAGER)
            self._seen.put(Kind.DEPLOYMENT, live)
        if self._differs(Kind.DEPLOYMENT, key, live, manifest):
            applied = await self._api.apply_deployment(key, manifest)
            self._keep(Kind.DEPLOYMENT, key, applied, manifest)
            self._shaped_at[key] = int(applied["metadata"]["generation"])

    async def _ensure_budget(self, queue: AstridQueue) -> None:
        key = queue.key
        manifest = desired_pdb(queue, works=self._members.left_alone(key))
        live = self._seen.get(Kind.BUDGET, key) or await _if_there(self._api.read_budget(key))
        if live is not None:
            _refuse_foreign(live, queue)
        if live is None or self._differs(Kind.BUDGET, key, live, manifest):
            self._keep(Kind.BUDGET, key, await self._api.apply_budget(key, manifest), manifest)

    def _differs(self, kind: Kind, key: QueueKey, live: Manifest, manifest: Manifest) -> bool:
        """Whether `live` was changed by anyone since it was applied, or another manifest was."""
        return self._applied.get((kind, key)) != (_digest(manifest), _fingerprint(live))

    def _keep(self, kind: Kind, key: QueueKey, applied: Manifest, manifest: Manifest) -> None:
        self._seen.put(kind, applied)
        self._applied[kind, key] = (_digest(manifest), _fingerprint(applied))


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
        except LeadershipLost:
            raise
        except OperatorError as error:
            log.warning("Event not posted", queue=str(queue.key), reason=reason, error=str(error))

    def _event(self, queue: Subject, kind: EventType, reason: str, message: str) -> client.CoreV1Event:
        now = self._now().wall
        regarding = client.V1ObjectReference(
            api_version=API_VERSION,
            kind=KIND,
            name=queue.key.name,
            namespace=queue.key.namespace,
            uid=queue.uid,
        )
        return client.CoreV1Event(
            metadata=client.V1ObjectMeta(name=f"{queue.key.name}.{uuid4().hex[:16]}"),
            involved_object=regarding,
            type=kind,
            reason=reason,
            message=message[:1024],
            count=1,
            first_timestamp=now,
            last_timestamp=now,
            source=client.V1EventSource(component=FIELD_MANAGER),
            reporting_component=f"{GROUP}/operator",
            reporting_instance=FIELD_MANAGER,
        )


async def _if_there(call: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return await call
    except ObjectGone:
        return None


def _refuse_foreign(live: Manifest, queue: AstridQueue) -> None:
    """Raise where `live` bears the AstridQueue's name and belongs to somebody else, or to its predecessor."""
    controller, metadata = _controller(live), live["metadata"]
    if metadata.get("deletionTimestamp"):
        message = f"{live.get('kind', 'object')} {queue.key} is being deleted"
        raise StillLeaving(message)
    if controller.get("uid") == queue.uid:
        return
    if controller.get("kind") == KIND:
        message = f"{live.get('kind', 'object')} {queue.key} of a deleted AstridQueue is not collected yet"
        raise StillLeaving(message)
    if controller or QUEUE_LABEL not in (metadata.get("labels") or {}):
        owner = f"{controller['kind']} {controller['name']}" if controller else "nobody"
        message = f"{live.get('kind', 'object')} {queue.key} exists and belongs to {owner}"
        raise NameTaken(message)


def _with_replicas(manifest: Manifest, replicas: int) -> dict[str, Any]:
    return {**manifest, "spec": {**manifest["spec"], "replicas": replicas}}


def _replicas_alone(live: Manifest) -> dict[str, Any]:
    """The smallest manifest that holds on to the size that `live` has."""
    metadata = {field: live["metadata"][field] for field in ("name", "namespace", "uid")}
    replicas = live["spec"].get("replicas", 1)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"replicas": replicas},
    }


def _fingerprint(live: Manifest) -> str:
    """What of `live` a person or another program could have changed: all but its size and its status."""
    metadata = live["metadata"]
    annotations = metadata.get("annotations") or {}
    ours = {key: value for key, value in annotations.items() if not key.startswith(_CONTROLLER_ANNOTATIONS)}
    spec = {field: value for field, value in (live.get("spec") or {}).items() if field != "replicas"}
    held = is_half_created(live)
    return _digest([_uid(live), metadata.get("labels"), ours, metadata.get("ownerReferences"), spec, held])


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=dict).encode()).hexdigest()


def _controller(live: Manifest) -> Mapping[str, Any]:
    references = live["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), {})


def _uid(live: Manifest | None) -> str | None:
    return live["metadata"].get("uid") if live is not None else None
