"""What the loop remembers of each AstridQueue from tick to tick.

Owns parsing: once for each change, with the last spec that made sense kept beside one that does not. Decides
and writes nothing.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from astrid_operator.astrid_queue import AstridQueue, QueueKey, parse_astrid_queue
from astrid_operator.deletion import is_held, is_leaving
from astrid_operator.errors import InvalidSpec
from astrid_operator.fleet import Subject
from astrid_operator.reconcile import Outcome, Status
from astrid_operator.scaling import ScalingMemory
from astrid_operator.start_times import StartTimes

log = structlog.get_logger(__name__)

#: Longest pause between two tries of one status, in seconds.
LONGEST_STATUS_PAUSE_SECONDS = 60.0

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """An AstridQueue of which only the metadata can be read."""

    key: QueueKey
    uid: str
    generation: int


@dataclass(slots=True)
class Record:
    """One AstridQueue."""

    subject: Subject
    manifest: Manifest
    memory: ScalingMemory
    #: The last spec that made sense; None: there was none yet.
    queue: AstridQueue | None = None
    #: Why the present spec does not; None: it does.
    invalid: InvalidSpec | None = None
    #: Another AstridQueue serves its queue, as far as is known.
    is_hands_off: bool = False
    #: What became of the last write.
    outcome: Outcome = field(default_factory=Outcome)
    #: The status that was written last, for a place that does not hold it itself; and when.
    status: Status | None = None
    status_at: float = float("-inf")
    #: Not before then is a status written that failed to be written.
    status_retry_at: float = float("-inf")
    status_failures: int = 0
    #: When it was logged last that a decision for it failed unexpectedly.
    bug_told_at: float = float("-inf")
    task: asyncio.Task[None] | None = None
    starts: StartTimes = field(default_factory=StartTimes)

    @property
    def is_busy(self) -> bool:
        """Something is being written for it; it is left alone until then."""
        return self.task is not None and not self.task.done()

    @property
    def invalid_reason(self) -> str:
        """The word for why the present spec is not gone by."""
        return self.invalid.reason if self.invalid is not None else ""

    def status_written(self, status: Status, now: float) -> None:
        """`status` is what readers see now."""
        self.status, self.status_at, self.status_failures = status, now, 0

    def status_failed(self, now: float, rng: random.Random) -> float:
        """A status was not written: the pause before the next try, in seconds."""
        longest = min(LONGEST_STATUS_PAUSE_SECONDS, 2.0 ** min(self.status_failures, 10))
        pause = rng.uniform(longest / 2, longest)
        self.status_failures += 1
        self.status_retry_at = now + pause
        return round(pause, 1)

    @property
    def previous(self) -> Status | None:
        """The status as it stands."""
        return self.manifest.get("status") or self.status


class Records:
    """Every AstridQueue that is there, and of those being deleted the ones that are held to be drained."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: dict[QueueKey, Record] = {}

    def __getitem__(self, key: QueueKey) -> Record:
        return self._records[key]

    def __contains__(self, key: QueueKey) -> bool:
        return key in self._records

    def __iter__(self) -> Iterator[QueueKey]:
        return iter(self._records)

    def valid(self) -> dict[QueueKey, AstridQueue]:
        """Those that have a spec to go by, be it an older one."""
        return {key: each.queue for key, each in self._records.items() if each.queue is not None}

    def invalid(self) -> list[Record]:
        """Those whose present spec makes no sense."""
        return [each for each in self._records.values() if each.invalid is not None]

    def tasks(self) -> list[asyncio.Task[None]]:
        """Writes that are under way."""
        return [each.task for each in self._records.values() if each.task is not None and each.is_busy]

    def update(self, manifests: Mapping[QueueKey, Manifest]) -> tuple[set[QueueKey], dict[QueueKey, Record]]:
        """Take over `manifests`; the keys whose spec changed, and the records of those that went."""
        there = {key: each for key, each in manifests.items() if not is_leaving(each) or is_held(each)}
        gone = {key: self._records.pop(key) for key in self._records.keys() - there.keys()}
        changed = {key for key, manifest in there.items() if self._update_one(key, manifest)}
        hopeless = {key for key in there if is_leaving(there[key]) and self._records[key].queue is None}
        gone |= {key: self._records.pop(key) for key in hopeless}
        return changed - hopeless, gone

    def _update_one(self, key: QueueKey, manifest: Manifest) -> bool:
        """Whether the spec is another than before."""
        record, identity = self._records.get(key), _identity(key, manifest)
        if record is not None and record.manifest is manifest:
            return False
        if record is None or record.subject.uid != identity.uid:
            record = self._records[key] = self._new(identity, manifest)
        elif _is_same(record.subject, identity):
            record.manifest = manifest
            return False
        record.manifest, record.subject = manifest, identity
        _parse(record)
        return True

    def _new(self, identity: Identity, manifest: Manifest) -> Record:
        decided = (manifest.get("status") or {}).get("desiredReplicas")
        return Record(
            identity, manifest, ScalingMemory(self._clock(), decided, is_inherited=decided is not None)
        )


def _parse(record: Record) -> None:
    try:
        record.queue, record.invalid = parse_astrid_queue(record.manifest), None
        record.subject = record.queue
        if is_leaving(record.manifest):
            record.queue = _disabled(record.queue)
    except InvalidSpec as error:
        if record.queue is not None and is_leaving(record.manifest):
            record.queue = _disabled(record.queue)
        record.invalid = error
        log.warning("AstridQueue invalid", queue=str(record.subject.key), path=error.path, error=str(error))


def _identity(key: QueueKey, manifest: Manifest) -> Identity:
    metadata = manifest["metadata"]
    return Identity(key, metadata.get("uid") or "", metadata.get("generation") or 0)


def _is_same(subject: Subject, identity: Identity) -> bool:
    """A server counts the changes of a spec; without a server every manifest is a new one."""
    return bool(identity.generation) and subject.generation == identity.generation


def _disabled(queue: AstridQueue) -> AstridQueue:
    """`queue` as it is while it is being deleted: nobody is wanted any more, whatever waits."""
    at = queue.deletion_requested_at or ""
    return replace(queue, deletion_requested_at=at, spec=replace(queue.spec, enabled=False))
