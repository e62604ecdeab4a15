"""What is known of delayed messages, and what is looked at next, as their queue changes."""

from dataclasses import dataclass, field

from astrid_operator.delayed import SLICE, EtaScan, ReadEnd, WalkOn

NOW = 1_000_000_000_000.0


@dataclass
class Queue:
    """Delayed messages, in the order of their list; `taken` of them are in workers' hands."""

    etas: list[float] = field(default_factory=list)
    taken: int = 0
    at: float = 0.0
    walked: int = 0
    scan: EtaScan = field(default_factory=EtaScan)

    def tick(self, *, seconds: float = 1.0, slices: int = 20) -> None:
        """A second passes, and the scan looks at what it wants, at most so many slices."""
        self.at += seconds
        self.scan.counted(len(self.etas), len(self.etas) - self.taken, self.now_ms, self.at)
        for _ in range(slices):
            asked = self.scan.wanted()
            if asked is None:
                return
            self._answer(asked)

    @property
    def now_ms(self) -> float:
        return NOW + self.at * 1000

    def _answer(self, asked: WalkOn | ReadEnd) -> None:
        if isinstance(asked, WalkOn):
            end = asked.cursor + SLICE
            found = self.etas[asked.cursor : end]
            self.walked += len(found)
            self.scan.took(asked, end if end < len(self.etas) else 0, found, 0)
        else:
            self.scan.took(asked, 0, self.etas[self.taken :][asked.start : asked.start + SLICE], 0)


def in_seconds(*seconds: float) -> list[float]:
    return [NOW + each * 1000 for each in seconds]


def test_a_large_queue_is_walked_bit_by_bit_and_once() -> None:
    """While the walk goes on, what was found counts already; when it is over, nothing more is read."""
    queue = Queue(in_seconds(*range(1000, 6500)))
    queue.tick(slices=2)
    etas = queue.scan.etas(queue.now_ms)
    assert (etas.unread, etas.due) == (5500, 0)
    assert etas.next_due_seconds == 999
    for _ in range(10):
        queue.tick(slices=2)
    assert queue.scan.etas(queue.now_ms).unread == 0
    assert queue.walked == 5500


def test_what_is_added_is_read_from_the_end_alone() -> None:
    """An earlier ETA at the end of the list is known a tick later, and nothing is walked again."""
    queue = Queue(in_seconds(*range(1000, 3000)))
    queue.tick()
    queue.etas += in_seconds(20)
    queue.tick()
    etas = queue.scan.etas(queue.now_ms)
    assert (etas.next_due_seconds, etas.soon, etas.unread) == (18, 1, 0)
    assert queue.walked == 2000


def test_what_became_due_and_left_is_forgotten_without_a_walk() -> None:
    """A worker took the earliest when its time had come: the next one is known already."""
    queue = Queue(in_seconds(2, 500))
    queue.tick()
    queue.tick(seconds=2)
    assert queue.scan.etas(queue.now_ms).due == 1
    del queue.etas[0]
    queue.tick()
    etas = queue.scan.etas(queue.now_ms)
    assert (etas.due, etas.next_due_seconds, etas.unread) == (0, 496, 0)
    assert queue.walked == 2


def test_what_left_before_its_time_is_looked_for() -> None:
    """A purge takes any of them: the whole queue is walked again."""
    queue = Queue(in_seconds(500, 900, 1000))
    queue.tick()
    del queue.etas[0]
    for _ in range(4):
        queue.tick()
    assert queue.scan.etas(queue.now_ms).next_due_seconds == 900 - queue.at


def test_a_retry_that_a_worker_took_at_once_is_looked_for() -> None:
    """It never stood in the list for long enough to be read there."""
    queue = Queue(in_seconds(5000))
    queue.tick()
    queue.etas += in_seconds(10)
    queue.taken = 2
    for _ in range(4):
        queue.tick()
    assert queue.scan.etas(queue.now_ms).next_due_seconds == 10 - queue.at


def test_walks_of_a_large_queue_are_rare() -> None:
    """A queue that changes in ways that cannot be followed is not walked all the time."""
    queue = Queue(in_seconds(*range(10_000, 110_000)))
    for _ in range(60):
        queue.scan.not_counted()
        queue.tick(slices=1000)
    assert queue.walked <= 2 * 100_000


def test_an_overdue_message_is_looked_at_again_and_still_counts() -> None:
    """It may be another one by now; if it is not, it goes on being due."""
    queue = Queue(in_seconds(1))
    queue.tick()
    for _ in range(10):
        queue.tick()
        assert queue.scan.etas(queue.now_ms).due == 1
    assert queue.walked > 1


def test_no_delayed_messages_are_no_knowledge() -> None:
    """What comes afterwards is learned afresh."""
    queue = Queue(in_seconds(100))
    queue.tick()
    queue.etas = []
    queue.tick()
    assert queue.scan.etas(queue.now_ms).next_due_seconds is None
    queue.etas = in_seconds(300)
    for _ in range(3):
        queue.tick()
    assert queue.scan.etas(queue.now_ms).next_due_seconds == 300 - queue.at


def test_duplicates_of_a_walk_never_count_more_than_there_are() -> None:
    """A hash that is resized while it is walked shows some of its fields twice."""
    scan = EtaScan()
    scan.counted(2, 2, NOW, 0.0)
    asked = scan.wanted()
    assert asked == WalkOn(0)
    scan.took(asked, 0, [1.0, 1.0, 2.0, 2.0], 0)
    assert scan.etas(NOW).due == 2
