"""What is told of AstridQueues, and when: statuses at once, soon or by the allowance, and events beside them.

Owns when a status is written. Neither decides what it says nor runs a write: `start` does, one at a time for
each AstridQueue.
"""

import random
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from astrid_operator.allowance import Allowance, Waiting
from astrid_operator.astrid_queue import QueueKey
from astrid_operator.conditions import Trouble
from astrid_operator.errors import OperatorError
from astrid_operator.fleet import Reporter, Subject
from astrid_operator.reconcile import Gathered, Status, report, status_of
from astrid_operator.records import Record, Records
from astrid_operator.scaling import ScalingDecision
from astrid_operator.status import Urgency, amount_of_change, invalid_status, urgency

log = structlog.get_logger(__name__)

#: Least age of a status when members that came or went are told, in seconds: they come one after the other.
SOON_SECONDS = 10.0

#: Age that a status has which was never written, in seconds: it comes first.
NEVER_WRITTEN_SECONDS = 1e6

Write = Callable[[], Coroutine[Any, Any, None]]


class Telling:
    """Statuses and events of all AstridQueues."""

    def __init__(
        self,
        records: Records,
        reporter: Reporter,
        start: Callable[[QueueKey, Write], None],
        *,
        clock: Callable[[], float],
        rng: random.Random,
        wall: Callable[[], datetime],
        writes_per_second: float,
    ) -> None:
        self._records = records
        self._reporter = reporter
        self._start = start
        self._clock = clock
        self._rng = rng
        self._wall = wall
        self._allowance = Allowance(writes_per_second, clock())
        #: What was seen at this tick of those whose numbers alone moved.
        self._waiting: list[Waiting[QueueKey]] = []
        self._numbers: dict[QueueKey, Write] = {}

    def look(self, gathered: Gathered, decision: ScalingDecision | None) -> None:
        """Start a status that cannot wait; note one that can for `grant`."""
        key, record = gathered.queue.key, self._records[gathered.queue.key]
        if record.invalid is not None or self._clock() < record.status_retry_at:
            return
        new = status_of(gathered, decision, record.outcome, self._now_iso())
        pressing = urgency(gathered.previous, new)
        if self._is_pressing(record, pressing):
            self._start(key, partial(self.tell, gathered, decision))
        elif pressing is not Urgency.NEVER:
            since = min(self._clock() - record.status_at, NEVER_WRITTEN_SECONDS)
            self._waiting.append(Waiting(key, since, amount_of_change(gathered.previous, new)))
            self._numbers[key] = partial(self.tell, gathered, decision)

    def look_at_invalid(self) -> None:
        """The status of what cannot be parsed; its last good fleet is sized all the same."""
        for record in self._records.invalid():
            key, trouble = record.subject.key, Trouble(record.invalid_reason, str(record.invalid))
            new = invalid_status(record.subject.generation, trouble, record.previous, self._now_iso())
            is_due = urgency(record.previous, new) is Urgency.NOW and self._clock() >= record.status_retry_at
            if is_due and not record.is_busy:
                self._start(key, partial(self._write, record, record.subject, record.previous, new))

    def grant(self) -> None:
        """Start as many of the statuses that can wait as the allowance has; the others ask again."""
        for key in self._allowance.grant(self._waiting, self._clock()):
            self._start(key, self._numbers[key])
        self._waiting.clear()
        self._numbers.clear()

    async def tell(
        self, gathered: Gathered, decision: ScalingDecision | None, *, is_granted: bool = True
    ) -> None:
        """Write the status if it is news; mere numbers only if that `is_granted`."""
        record = self._records[gathered.queue.key]
        new = status_of(gathered, decision, record.outcome, self._now_iso())
        pressing = urgency(gathered.previous, new)
        is_news = self._is_pressing(record, pressing) or (is_granted and pressing is not Urgency.NEVER)
        if record.invalid is None and is_news:
            await self._write(record, gathered.queue, gathered.previous, new)

    async def event(self, subject: Subject, reason: str, message: str) -> None:
        """Tell of something that is in no status; where that fails, the log has it."""
        try:
            await self._reporter.event(subject, "Warning", reason, message)
        except OperatorError as error:
            log.warning("Event not written", queue=str(subject.key), reason=reason, error=str(error))

    def _is_pressing(self, record: Record, pressing: Urgency) -> bool:
        """A status is to be written without asking the allowance."""
        age = self._clock() - record.status_at
        return pressing is Urgency.NOW or (pressing is Urgency.SOON and age >= SOON_SECONDS)

    async def _write(self, record: Record, subject: Subject, previous: Status | None, new: Status) -> None:
        """Write `new`; a failure is no more than a reason to write later."""
        try:
            await report(self._reporter, subject, previous, new)
        except OperatorError as error:
            pause = record.status_failed(self._clock(), self._rng)
            log.warning(
                "Status not written", queue=str(subject.key), error=str(error), again_in_seconds=pause
            )
        else:
            record.status_written(new, self._clock())

    def _now_iso(self) -> str:
        return self._wall().strftime("%Y-%m-%dT%H:%M:%SZ")
