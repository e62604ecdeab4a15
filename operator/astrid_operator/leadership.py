"""Which of several operators writes: the holder of one Lease.

Owns taking, renewing and giving back that Lease, and the answer to "may I still write?". Time is measured on
this process's monotonic clock only: the wall times in a Lease are for people. Never touches a fleet. All but
`is_leader` belongs to one event loop.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import structlog
from kubernetes.aio import client

from astrid_operator.errors import Conflict, LeadershipLost, ObjectGone, TryAgain
from astrid_operator.kubernetes_requests import LEASES, MERGE, KubernetesRequests

log = structlog.get_logger(__name__)

#: Seconds by which a try comes after another's Lease has run out, so that it is not a moment too early.
SHORTEST_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds of the election; a follower waits longer than a leader that cannot renew goes on."""

    lease: float = 5.0
    renew: float = 3.5
    retry: float = 1.0

    def __post_init__(self) -> None:
        if not self.retry < self.renew < self.lease:
            message = (
                f"lease times must grow: retry {self.retry:g} < renew {self.renew:g} < lease {self.lease:g} s"
            )
            raise ValueError(message)


class Leadership:
    """One process's part in the election for the Lease `namespace`/`name`."""

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._requests = KubernetesRequests(api)
        self.namespace, self.name, self.identity = namespace, name, identity
        self._times = times
        self._clock = clock
        self._renewed_at = float("-inf")
        self._seen: tuple[Any, ...] = ()
        self._seen_at = clock()
        #: How long the Lease that was seen last is another's, in seconds.
        self._lasts = 0.0
        #: How often the Lease was taken from another, or from nobody.
        self._terms = 0
        #: The Lease as we wrote it last: what is ours need not be read again to be renewed.
        self._ours: dict[str, Any] | None = None

    @property
    def is_leader(self) -> bool:
        """Nobody else can hold the Lease now, however wrong any wall clock is."""
        return self._clock() - self._renewed_at < self._times.renew

    async def acquire(self) -> None:
        """Return once this process holds the Lease."""
        while not await self._attempt():  # noqa: ASYNC110 - the other end is a server, not an event
            await asyncio.sleep(self._pause())
        log.info("Leadership acquired", lease=f"{self.namespace}/{self.name}", identity=self.identity)

    def _pause(self) -> float:
        """Seconds until it is worth trying again: no later than the Lease of another runs out."""
        left = self._seen_at + self._lasts - self._clock()
        return min(self._times.retry, left + SHORTEST_PAUSE_SECONDS) if left > 0 else self._times.retry

    async def hold(self, unfit: Callable[[], str] = lambda: "") -> None:
        """Renew until another holds the Lease, or has held it meanwhile; then raise LeadershipLost.

        Where renewing fails for too long, this process is no leader, and is one again where nobody else took
        the Lease meanwhile: who restarts for an API server that was away for some seconds has learned nothing
        by it. `unfit` says why this process should not lead any more; empty: it may.
        """
        terms = self._terms
        while True:
            await asyncio.sleep(self._times.retry)
            if reason := unfit():
                raise LeadershipLost(reason)
            if not await self._attempt() and self._holder_is_another():
                self._renewed_at = float("-inf")
                message = f"Lease {self.namespace}/{self.name} is held by {self._seen[0]}"
                raise LeadershipLost(message)
            if self._terms != terms:
                message = f"Lease {self.namespace}/{self.name} was another's meanwhile"
                raise LeadershipLost(message)

    async def release(self) -> None:
        """Give the Lease back, so that a follower need not wait for it to expire; try once."""
        if not self.is_leader:
            return
        self._renewed_at = float("-inf")
        try:
            lease = await self._read()
            if _holder(lease) == self.identity:
                await self._write(
                    lease, {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                )
        except (TryAgain, ObjectGone) as error:
            log.warning("Lease not released", lease=f"{self.namespace}/{self.name}", error=str(error))

    async def _attempt(self) -> bool:
        """One try to take or renew; True if it was written."""
        started = self._clock()
        try:
            if not await self._renewed():
                await self._take(await self._read_or_create())
        except _NotOurs:
            return False
        except (TryAgain, ObjectGone) as error:
            log.warning("Lease not written", lease=f"{self.namespace}/{self.name}", error=str(error))
            return False
        self._renewed_at = started
        return True

    async def _renewed(self) -> bool:
        """Renew what is ours without reading it; False where it is not, or somebody else wrote to it."""
        ours, self._ours = self._ours, None
        if ours is None:
            return False
        try:
            await self._take(ours)
        except (Conflict, ObjectGone):
            return False
        return True

    async def _take(self, lease: dict[str, Any]) -> None:
        self._look_at(lease)
        holder = _holder(lease)
        if holder not in ("", self.identity) and self._clock() - self._seen_at < self._duration(lease):
            raise _NotOurs
        spec: dict[str, Any] = {
            "holderIdentity": self.identity,
            "renewTime": _now(),
            "leaseDurationSeconds": max(1, round(self._times.lease)),
        }
        if holder != self.identity:
            transitions = int((lease.get("spec") or {}).get("leaseTransitions") or 0)
            spec |= {"acquireTime": _now(), "leaseTransitions": transitions + 1}
        self._ours = await self._write(lease, spec)
        self._terms += holder != self.identity
        self._look_at(self._ours)

    async def _read_or_create(self) -> dict[str, Any]:
        try:
            return await self._read()
        except ObjectGone:
            empty = {"metadata": {"name": self.name}, "spec": {}}
            path = LEASES.path(self.namespace)
            return await self._requests.send("POST", path, body=empty, timeout_s=self._timeout)

    async def _read(self) -> dict[str, Any]:
        path = LEASES.path(self.namespace, self.name)
        return await self._requests.send("GET", path, timeout_s=self._timeout)

    async def _write(self, lease: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        """Patch `spec` into the very version of the Lease that was read; Conflict if there is a newer one."""
        return await self._requests.send(
            "PATCH",
            LEASES.path(self.namespace, self.name),
            query={"fieldManager": "astrid-operator"},
            body={"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": spec},
            content_type=MERGE,
            timeout_s=self._timeout,
        )

    @property
    def _timeout(self) -> float:
        """A request that hangs must leave time for another before the deadline."""
        return max(0.5, self._times.renew / 3)

    def _look_at(self, lease: dict[str, Any]) -> None:
        """Remember when, on our own clock, the Lease was last seen to change."""
        spec = lease.get("spec") or {}
        record = (_holder(lease), spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._seen:
            self._seen, self._seen_at = record, self._clock()
        self._lasts = self._duration(lease)

    def _duration(self, lease: dict[str, Any]) -> float:
        """How long its holder asked to be left alone: never less than our own rule."""
        return max(self._times.lease, float((lease.get("spec") or {}).get("leaseDurationSeconds") or 0))

    def _holder_is_another(self) -> bool:
        return bool(self._seen) and self._seen[0] not in ("", self.identity)


class _NotOurs(Exception):  # noqa: N818 - a turn of the election, not an error
    """Somebody else holds the Lease and was seen to renew it lately."""


def _holder(lease: dict[str, Any]) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
