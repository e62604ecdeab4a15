"""What goes into a scaling decision and what comes out: frozen values, times in monotonic seconds.

Owns the words for demand and the one list of reasons, which the condition, the event, the metric's label and
the log all use. Reads nothing and decides nothing. A field that is None was not measured.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

from astrid_operator.presence import MemberSaid
from astrid_operator.values import value


class Reason(StrEnum):
    """Why a fleet has the size it has, or is given another."""

    DISABLED = "Disabled"  #: `enabled` is false
    PAUSED = "Paused"  #: `paused` forbids the change
    MANUAL = "Manual"  #: `replicas` says how many
    BROKER_UNREACHABLE = "BrokerUnreachable"  #: demand is not known, so nothing changes
    NOT_TRUSTED_YET = "NotTrustedYet"  #: demand is known, but too fresh to shrink on
    BACKLOG = "Backlog"  #: what waits should be gone within `targetDrainSeconds`
    ARRIVAL_RATE = "ArrivalRate"  #: what arrives has to be kept up with
    QUEUE_AGE = "QueueAge"  #: a message waits longer than `maxQueueAgeSeconds`
    DELAYED = "DelayedMessages"  #: only a living worker moves a delayed message when its time comes
    FLOOR = "Floor"  #: `minReplicas`, or `replicas` in Auto
    CEILING = "Ceiling"  #: `maxReplicas`
    NOT_WORTH_IT = "NotWorthIt"  #: what is there will be done before another could start
    NO_ROOM = "NoRoom"  #: members that fitted nowhere for `unschedulableSeconds` were withdrawn
    SCALE_LIMITED = "ScaleLimited"  #: a budget (local slots, GPUs) grants fewer
    STILL_BUSY = "StillBusy"  #: smaller would do, but a busy member might be hit
    COOLING_DOWN = "CoolingDown"  #: smaller would do, but not for long enough yet
    BURST = "Burst"  #: smaller would do, but messages have just begun to come faster
    SURPLUS = "Surplus"  #: idle members leave
    IDLE = "Idle"  #: there is nothing to do


@value
class MembersSeen:
    """What a fleet's members say of themselves, where each of them can be asked to leave."""

    #: Members that run or hold a message.
    busy: int
    #: Seconds since each idle member last had one; members that are leaving are not in it.
    idle_seconds: tuple[float, ...]
    #: Of the idle ones, those that were asked to leave and fetch nothing more.
    stopped: int = 0


@value
class Demand:
    """One queue as its broker was read: all that justifies capacity."""

    #: Messages that wait.
    ready: int = 0
    #: Messages fetched and not acknowledged: running, prefetched, or held by a process that is gone.
    running: int = 0
    #: Messages with an ETA, those that are due included.
    delayed: int = 0
    #: Messages in the dead letters.
    dead: int = 0
    #: Age of the message that waits longest; None where none waits or the age is not known.
    oldest_seconds: float | None = None
    #: Delayed messages whose time has come; None: not known, as ETAs cannot be read or, while anything is
    #: outstanding, are not looked for.
    due: int | None = None
    #: Delayed messages whose time comes within a minute; None: as for `due`.
    soon: int | None = None
    #: Delayed messages whose ETAs are still being read: then `due` and the next are at least what is told.
    delayed_unread: int = 0
    #: Seconds until the next delayed message is due; None: none, or ETAs were not read (then `due` is None).
    next_due_seconds: float | None = None
    #: Messages held by processes that are gone, waiting or delayed; None: not looked for.
    orphans: int | None = None
    #: Mean time of one task, and how far tasks lie from it (standard deviation).
    service_seconds: float | None = None
    service_spread_seconds: float | None = None
    #: Messages per second that arrive, over a short and a long window.
    arrivals_per_s_fast: float | None = None
    arrivals_per_s_slow: float | None = None
    #: Tasks that ended since counting began; only differences mean anything.
    finished: int | None = None
    #: Those of them that raised, and the seconds that all of them took together.
    failed: int | None = None
    task_seconds: float | None = None
    #: How long messages waited until they were started, as `waits.waits_of` understands it;
    #: empty: nobody counted.
    waits: bytes = b""
    #: From asking for a member to its first heartbeat.
    start_seconds: float | None = None
    #: None: members do not say, or cannot be asked to leave one by one.
    members: MembersSeen | None = None

    @property
    def outstanding(self) -> int:
        """Ready and running."""
        return self.ready + self.running

    @property
    def later(self) -> int | None:
        """Delayed messages that are neither due nor due soon, as far as is known."""
        return None if self.due is None else max(0, self.delayed - self.due - (self.soon or 0))

    @property
    def work(self) -> int:
        """Outstanding and due."""
        return self.ready + self.running + (self.due or 0)


@value
class DemandReading:
    """One attempt to read a queue's demand."""

    #: When it was made.
    at: float
    #: None: it did not succeed, and `trouble` says why (without any credential).
    demand: Demand | None
    trouble: str = ""
    #: When the latest successful attempt was made, this one included; None: never yet.
    last_read_at: float | None = None
    #: Identity of the server that answered (its run id); None: not asked.
    server: str | None = None
    #: Member → what its processes say of themselves; None: nobody could be heard.
    said: Mapping[str, MemberSaid] | None = None

    @property
    def unread_seconds(self) -> float | None:
        """How old the newest knowledge is; None: there never was any."""
        return None if self.last_read_at is None else max(0.0, self.at - self.last_read_at)


@value
class ScalingMemory:
    """What is remembered of a queue from one decision to the next; a new one needs `started_at` alone."""

    #: When this process began to decide for this queue.
    started_at: float
    #: Size that was decided last (or found in the status at the start); None: none yet.
    decided: int | None = None
    #: When the last reading was made, and whether it told anything.
    at: float | None = None
    was_known: bool = True
    #: The last demand that was known, and who told it.
    demand: Demand | None = None
    server: str | None = None
    #: Time that is known to have passed without any work; unknown time does not count.
    idle_seconds: float = 0.0
    #: Until when an empty queue is not believed, and why.
    untrusted_until: float = float("-inf")
    untrusted_why: str = ""
    #: Since when a smaller fleet would do, without a break; None: it would not.
    surplus_since: float | None = None
    #: Since when demand has been known without a break; None: it is not.
    watched_since: float | None = None
    #: The most that was wanted lately: (until when it counts, size), sizes falling; the last is wanted now.
    peaks: tuple[tuple[float, int], ...] = ()
    #: Until when a burst forbids to shrink.
    burst_until: float = float("-inf")
    #: Until when members that fitted nowhere are not asked for again.
    no_room_until: float = float("-inf")
    #: Its fleet was sized before this process began to.
    is_inherited: bool = False


@value
class ScalingDecision:
    """How many members a fleet shall have now."""

    replicas: int
    reason: Reason
    #: The sentence, or what writes it: hardly any of a simulation's millions is ever read.
    told: str | Callable[[], str]
    #: When the answer may change although nothing has happened but that time has passed; None: never.
    look_again_at: float | None = None
    #: What demand, floor and ceiling alone would ask for: what a budget has to know.
    wanted: int = 0
    #: AstridQueues that hold what a budget withholds.
    held_by: tuple[str, ...] = ()
    #: Time of one task, measured or expected: what a budget weighs a start against; None: not known.
    task_seconds: float | None = None
    #: Seconds until one more message comes, on average; 0: one waits, or nothing is known of that.
    lull_seconds: float = 0.0
    #: False: no member may be taken from it for others either, whatever its size was decided for.
    may_shrink: bool = True

    @property
    def message(self) -> str:
        """One sentence with the numbers behind it."""
        return self.told if isinstance(self.told, str) else self.told()
