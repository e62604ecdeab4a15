"""Fleets as Deployments, with a PodDisruptionBudget each.

Owns the order in which a Deployment comes to be, and when an object differs from what it should be. Decides
nothing about sizes; knows of objects only what `Seen` holds, so that the API is never polled.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from operator import is_
from typing import Any

import structlog

from astrid_operator.astrid_queue import KIND, AstridQueue, QueueKey
from astrid_operator.deletion import finalizers, is_held, is_leaving, should_hold
from astrid_operator.desired import OperatorDefaults, desired_deployment, desired_pdb, max_unavailable
from astrid_operator.errors import NameTaken, ObjectGone, OperatorError, StillLeaving
from astrid_operator.fleet import FleetState
from astrid_operator.fleet_view import (
    REPLICAS_MANAGER,
    Moment,
    fleet_state,
    is_half_created,
    member,
    replicas_are_held,
)
from astrid_operator.kinds import QUEUE_LABEL, Kind
from astrid_operator.kubernetes_api import KubernetesApi
from astrid_operator.pod_members import PodMembers
from astrid_operator.pod_retirement import PodRetirement, Retired
from astrid_operator.presence import MemberSaid
from astrid_operator.quiesce import Conversation
from astrid_operator.scaling_values import MembersSeen
from astrid_operator.seen import Seen

log = structlog.get_logger(__name__)

#: Annotations that the Deployment's own controller writes.
_CONTROLLER_ANNOTATIONS = "deployment.kubernetes.io/"

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Observed:
    """What a fleet was taken for, and the objects that said so: as long as these are the same, so is it."""

    deployment: Manifest | None
    pods: tuple[Manifest, ...]
    shaped_at: int | None
    state: FleetState

    def is_of(self, deployment: Manifest | None, pods: tuple[Manifest, ...], shaped_at: int | None) -> bool:
        """Nothing else has been told since."""
        is_same = self.deployment is deployment and self.shaped_at == shaped_at
        return is_same and len(self.pods) == len(pods) and all(map(is_, self.pods, pods))


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
        #: Objects change seldom, and are looked at every second.
        self._observed: dict[QueueKey, _Observed] = {}

    async def observe(self, key: QueueKey) -> FleetState:
        queue, deployment = self._seen.get(Kind.ASTRID_QUEUE, key), self._seen.get(Kind.DEPLOYMENT, key)
        if deployment is not None and _controller(deployment).get("uid") not in (None, _uid(queue)):
            return FleetState()
        state = self._members.as_heard(key, self._state(key, deployment))
        self._retirement.saw(key, state.members)
        if not state.exists or deployment is None:
            return state
        is_ours = _controller(deployment).get("uid") is not None
        is_inherited = is_ours and (Kind.DEPLOYMENT, key) not in self._applied
        needs_care = self._needs_care(key, state)
        if not (is_inherited or needs_care):
            return state
        return replace(state, is_inherited=is_inherited, needs_care=needs_care)

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

    async def tend(self, queue: AstridQueue, replicas: int, *, whoever: bool, spare: int = 0) -> int | None:
        self._api.check_leads()
        state = await self.observe(queue.key)
        step = await self._retirement.look(queue, state, replicas, whoever=whoever, spare=spare)
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
        self._observed.pop(key, None)
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
        state = self._state(key, self._seen.get(Kind.DEPLOYMENT, key))
        if not state.exists:
            moment = self._now()
            members = tuple(member(pod, moment) for pod in self._seen.pods(key))
            state = replace(state, members=members)
        return self._members.seen(key, self._members.as_heard(key, state).members, running)

    def _state(self, key: QueueKey, deployment: Manifest | None) -> FleetState:
        """What the newest known objects say, as it was found when they came."""
        pods, shaped_at = self._seen.pods(key), self._shaped_at.get(key)
        known = self._observed.get(key)
        if known is None or not known.is_of(deployment, pods, shaped_at):
            state = fleet_state(deployment, pods, self._now(), shaped_at)
            known = self._observed[key] = _Observed(deployment, pods, shaped_at, state)
        return known.state

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
