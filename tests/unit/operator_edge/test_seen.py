"""The store of what watches told: newest wins, ghosts do not come back, misses are found."""

from typing import Any

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.kinds import Kind
from astrid_operator.seen import Seen

KEY = QueueKey("sky", "q")


def thing(
    version: int, *, name: str = "q", uid: str = "u1", label: str | None = "q", **metadata: Any
) -> dict[str, Any]:
    labels = {"astrid.dev/queue": label} if label else {}
    made = {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels, **metadata}
    identity = {"name": name, "namespace": "sky", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": {**made, **identity}, "spec": {"replicas": 1}}


def test_an_older_version_never_replaces_a_newer_one() -> None:
    """Versions are numbers: 9 is older than 10, and an echo is no news."""
    seen = Seen()

    assert seen.put(Kind.DEPLOYMENT, thing(10)) == KEY
    assert seen.put(Kind.DEPLOYMENT, thing(9)) is None
    assert seen.put(Kind.DEPLOYMENT, thing(10)) is None
    assert seen.put(Kind.DEPLOYMENT, thing(11)) == KEY


def test_a_late_echo_does_not_revive_what_was_deleted() -> None:
    """The answer to a patch may come after the watch told of the deletion."""
    seen = Seen()
    seen.put(Kind.DEPLOYMENT, thing(5))
    seen.drop(Kind.DEPLOYMENT, thing(8))

    assert seen.put(Kind.DEPLOYMENT, thing(7)) is None
    assert seen.get(Kind.DEPLOYMENT, KEY) is None


def test_what_lost_its_label_and_has_it_again_is_known_again() -> None:
    """A watch by label tells of a removed label as of a deletion; the same object may come back, newer."""
    seen = Seen()
    seen.put(Kind.DEPLOYMENT, thing(5))
    seen.drop(Kind.DEPLOYMENT, thing(8))

    assert seen.put(Kind.DEPLOYMENT, thing(9)) == KEY


def test_the_deletion_of_a_predecessor_leaves_its_successor() -> None:
    """Events of two objects of one name may cross."""
    seen = Seen()
    seen.put(Kind.DEPLOYMENT, thing(5))
    seen.put(Kind.DEPLOYMENT, thing(3, uid="u2", creationTimestamp="2026-01-02T00:00:00Z"))
    seen.drop(Kind.DEPLOYMENT, thing(9))

    found = seen.get(Kind.DEPLOYMENT, KEY)
    assert found is not None
    assert found["metadata"]["uid"] == "u2"


def test_what_carries_no_label_of_ours_is_nobodys() -> None:
    """Other people's objects are not kept."""
    seen = Seen()

    assert seen.put(Kind.POD, thing(1, label=None)) is None
    assert seen.all(Kind.POD) == ()


def test_a_resync_finds_what_a_watch_missed_and_nothing_else() -> None:
    """A missed deletion goes, a missed change comes, what is newer than the list stays, and misses are counted."""
    seen = Seen()
    for each in (thing(1, name="p1", uid="a"), thing(1, name="p2", uid="b"), thing(6, name="p3", uid="c")):
        seen.put(Kind.POD, each)
    before = seen.all(Kind.POD)
    seen.put(Kind.POD, thing(7, name="p4", uid="d"))
    listed = [thing(4, name="p2", uid="b"), thing(5, name="p3", uid="c")]
    touched = seen.resync(Kind.POD, listed, before)

    versions = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in seen.pods(KEY)}
    assert versions == {"p2": "4", "p3": "6", "p4": "7"}
    assert touched == {KEY}
    assert seen.resync(Kind.POD, [thing(7, name="p4", uid="d")], seen.all(Kind.POD)[2:]) == set()


def test_what_a_list_told_first_is_no_miss_once_the_watch_tells_it_too() -> None:
    """A list may be ahead of a watch by a moment; only what the watch never tells was missed, and is told once."""
    seen = Seen()
    seen.resync(Kind.POD, [thing(4, name="p1", uid="a"), thing(4, name="p2", uid="b")], ())
    seen.take(Kind.POD, {"type": "ADDED", "object": thing(4, name="p1", uid="a")})

    assert seen.missed() == 1
    assert seen.missed() == 0

    seen.resync(Kind.POD, [], seen.all(Kind.POD))
    seen.take(Kind.POD, {"type": "DELETED", "object": thing(9, name="p1", uid="a")})
    seen.take(Kind.POD, {"type": "DELETED", "object": thing(9, name="p2", uid="b")})
    assert seen.missed() == 0


def test_a_size_that_we_wrote_is_known_before_the_watch_tells() -> None:
    """Else the next tick would write it again; an older answer does not undo a newer watch event."""
    seen = Seen()
    seen.put(Kind.DEPLOYMENT, thing(5))
    seen.rescaled(KEY, 8, "6")
    found = seen.get(Kind.DEPLOYMENT, KEY)
    assert found is not None
    assert found["spec"]["replicas"] == 8

    seen.put(Kind.DEPLOYMENT, thing(9))
    seen.rescaled(KEY, 4, "7")
    found = seen.get(Kind.DEPLOYMENT, KEY)
    assert found is not None
    assert found["spec"]["replicas"] == 1


def test_an_edit_of_a_queue_is_told_from_the_writing_of_its_status() -> None:
    """Our own status writes must not wake the loop; a new spec must."""
    seen = Seen()
    take = seen.take

    assert take(Kind.ASTRID_QUEUE, {"type": None, "object": thing(1, generation=1)}) == (KEY, True)
    assert take(Kind.ASTRID_QUEUE, {"type": "MODIFIED", "object": thing(2, generation=1)}) == (None, False)
    assert take(Kind.ASTRID_QUEUE, {"type": "MODIFIED", "object": thing(3, generation=2)}) == (KEY, True)
    assert take(Kind.ASTRID_QUEUE, {"type": "DELETED", "object": thing(4, generation=2)}) == (KEY, True)
    assert seen.queues() == {}
