"""Which delayed messages are known to stand in the list, as that changes, and what is made of one that is due."""

import json
from dataclasses import dataclass, field

import pytest

from astrid_operator import due
from astrid_operator.due import HEAD, SLICE, DueMessages, Part, Place, ReadListed, released

NOW = 1_000_000_000_000.0


@dataclass
class Listed:
    """The list of delayed messages of one queue, (id, ETA) each, and what is known of it."""

    names: list[tuple[bytes, float]] = field(default_factory=list)
    at: float = 0.0
    read: dict[Part, int] = field(default_factory=lambda: dict.fromkeys(Part, 0))
    known: DueMessages = field(default_factory=DueMessages)

    def tick(self, *, seconds: float = 1.0, reads: int = 20) -> None:
        """A second passes, and what is wanted is read, at most so often."""
        self.at += seconds
        first, last = (self.names[0][0], self.names[-1][0]) if self.names else (b"", b"")
        self.known.counted(len(self.names), first, last, self.at)
        for _ in range(reads):
            asked = self.known.wanted()
            if asked is None:
                return
            self._answer(asked)

    def _answer(self, asked: ReadListed) -> None:
        names = [name for name, _ in self.names]
        start = names.index(asked.after.name) + 1 if asked.after.name in names else 0
        left_out = max(0, len(names) - start - asked.most) if asked.part is Part.END else 0
        start += left_out
        part = self.names[start : start + asked.most]
        self.read[asked.part] += len(part)
        upto = Place(part[-1][0] if part else asked.after.name, start + len(part) - 1, len(names))
        found = [(eta, name) for name, eta in part if eta <= asked.latest_ms]
        self.known.took(asked, upto, found, left_out)

    def due(self, most: int = 100) -> list[bytes]:
        return self.known.due(NOW, most)


def far(count: int, start: int = 0) -> list[tuple[bytes, float]]:
    return [(b"far%d" % number, NOW + 1e9 + number) for number in range(start, start + count)]


def test_what_is_added_behind_a_long_list_is_known_at_once() -> None:
    """It does not wait until the list was read, which may take long."""
    listed = Listed(far(50_000))
    listed.tick(reads=1)
    listed.names.append((b"now", NOW))
    listed.tick(reads=1)
    assert listed.due() == [b"now"]


@pytest.mark.parametrize("place", [0, HEAD - 1, -SLICE, -1])
def test_what_stands_at_either_end_is_known_at_first_sight(place: int) -> None:
    """Also of a list that a new operator, or one that could not read for a while, finds long."""
    names = far(50_000)
    names[place] = (b"now", NOW)
    listed = Listed(names)
    listed.tick(reads=2)
    assert listed.due() == [b"now"]


def test_all_of_the_list_is_read_once_and_bit_by_bit() -> None:
    """What stood there before is found, in slices, and not read again for a long time."""
    listed = Listed([*far(4500), (b"now", NOW), *far(100, 4500)])
    for _ in range(30):
        listed.tick(reads=1)
    assert listed.due() == [b"now"]
    assert listed.read[Part.ALL] == 4601
    listed.tick(seconds=due.LEAST_AGAIN_SECONDS + 4601 / due.READ_PER_SECOND)
    assert listed.read[Part.ALL] == 2 * 4601


def test_what_comes_back_to_the_beginning_is_known() -> None:
    """A worker that leaves gives back what it held at the beginning of the list."""
    listed = Listed(far(3000))
    listed.tick()
    listed.names.insert(0, (b"back", NOW))
    listed.tick()
    assert listed.due() == [b"back"]
    assert listed.read[Part.HEAD] == 2 * HEAD


def test_a_list_that_workers_empty_costs_nothing() -> None:
    """What they hold is theirs: nothing is kept of it."""
    listed = Listed([(b"a", NOW)])
    listed.tick()
    listed.names = []
    listed.tick()
    assert (listed.due(), listed.known.next_ms(), listed.known.wanted()) == ([], None, None)


def test_a_list_that_was_replaced_whole_is_read_from_its_start() -> None:
    """The id that was read last is gone, and so is all that stood before it."""
    listed = Listed(far(10))
    listed.tick()
    listed.names = [(b"x", NOW - 1), (b"y", NOW)]
    listed.tick()
    assert listed.due() == [b"x", b"y"]


def test_a_moved_message_leaves_the_end_where_it_is() -> None:
    """The last id was moved, and the first one stands in its place: what comes after is new, the rest is not."""
    listed = Listed([*far(2000), (b"now", NOW)])
    listed.tick()
    assert listed.due() == [b"now"]
    first = listed.names.pop(0)
    listed.names[-1] = first
    listed.known.moved(b"now", first[0])
    assert listed.due() == []
    listed.names.append((b"next", NOW))
    listed.tick()
    assert listed.due() == [b"next"]
    assert listed.read[Part.END] == SLICE + 1


def test_due_messages_come_in_order_and_no_more_than_asked_for() -> None:
    """The earliest first; what is put off waits for its time, what is forgotten is gone."""
    listed = Listed([(b"c", NOW - 1), (b"a", NOW - 3), (b"later", NOW + 1), (b"b", NOW - 2)])
    listed.tick()
    assert listed.due(most=2) == [b"a", b"b"]
    listed.known.forget([b"a"])
    listed.known.defer([b"b"], NOW + 5)
    assert listed.due() == [b"c"]
    assert listed.known.due(NOW + 5, 10) == [b"c", b"later", b"b"]
    listed.known.forget([b"c"])
    assert (listed.known.next_ms(), listed.known.next_eta_ms()) == (NOW + 1, NOW + 1)
    listed.known.forget([b"later"])
    assert (listed.known.next_ms(), listed.known.next_eta_ms()) == (NOW + 5, None)


def test_memory_is_bounded_and_the_earliest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a list that is too long the earliest are known; when they are used up, it is read again."""
    monkeypatch.setattr(due, "KEPT", 100)
    names = [(b"%04d" % number, NOW + (number * 7919) % 3000 - 2999) for number in range(3000)]
    listed = Listed(names)
    listed.tick()
    moved: list[bytes] = []
    for _ in range(200):
        found = listed.due(most=20)
        assert len(listed.known.due(NOW, 10_000)) <= 100
        listed.known.forget(found)
        moved += found
        listed.names = [each for each in listed.names if each[0] not in set(found)]
        listed.tick()
    assert sorted(moved) == sorted(name for name, _ in names)
    etas = dict(names)
    assert [etas[name] for name in moved] == sorted(etas.values())


def test_of_more_than_a_slice_that_comes_at_once_the_end_is_known_first() -> None:
    """A retry behind a hundred thousand that were just added is known at once, and all of them in the end."""
    listed = Listed(far(10))
    listed.tick()
    listed.names += [(b"n%d" % number, NOW) for number in range(3 * SLICE + 7)]
    listed.tick(reads=1)
    assert b"n%d" % (3 * SLICE + 6) in listed.due(most=10_000)
    listed.tick()
    assert len(listed.due(most=10_000)) == 3 * SLICE + 7


def body(**options: object) -> bytes:
    fields = {"queue_name": "q.DQ", "actor_name": "a", "args": [], "kwargs": {}, "options": options}
    return json.dumps({**fields, "message_id": "m", "message_timestamp": 1}).encode()


@pytest.mark.parametrize(
    ("eta", "due_ms"),
    [
        pytest.param(5, 5.0, id="a number is the time itself"),
        pytest.param(5.5, 5.5, id="a fraction of a millisecond too"),
        pytest.param("soon", 0.0, id="what is no number is due at once, as to Dramatiq"),
        pytest.param(None, 0.0, id="nothing is due at once, as to Dramatiq"),
        pytest.param(float("nan"), 0.0, id="no time is later than one that is no number"),
        pytest.param(float("inf"), float("inf"), id="never is never"),
    ],
)
def test_when_a_message_is_due(eta: object, due_ms: float) -> None:
    found = released(body(eta=eta), "q", "new")
    assert found is not None
    assert found.eta_ms == due_ms
    assert json.loads(found.body)["options"] == {"redis_message_id": "new"}


def test_an_eta_beyond_all_numbers_is_left_alone() -> None:
    """A number that no clock could ever reach is none to wait for."""
    assert released(body(eta=10**400), "q", "new") is None
