"""B9: what Redis may do to a fleet: refuse, come back empty, load, fail over, flap. Does any fleet shrink?

Five fleets with a Redis of their own each, real workers as pods, one operator. Each fleet runs long tasks and
has delayed messages, some due during its fault and some after it; then all faults begin at once. Bars: no
fleet is asked to be smaller than it was from the fault's begin until a trust window (60 s) after its end;
every delayed message that its server still had runs; nothing is broken off or runs twice. A server that comes
back empty has lost what waits: there only the fleet's size is judged.

    python benchmarks/scaling/redis_faults.py --refused 200 --seed 1      # about 7 minutes
    python benchmarks/scaling/redis_faults.py --refused 30                # the same in 4
"""

import argparse
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from process_rig import Diary, ProcessRig, process_rig_or_exit, table
from rig import save, say

from astrid_operator.scaling_memory import TRUST_SECONDS
from astrid_workers.redis_address import redis_client
from support.redis_server import RedisServer, valkey_binary
from support.sentinels import WatchedService
from support.tcp_proxy import TcpProxy
from support.waiting import wait_until

#: Long tasks of each fleet; one member has two threads, so that one of four is free for delayed messages.
LONG_TASKS = 3
MEMBERS = 2
SCALING = {"maxReplicas": MEMBERS, "expectedTaskSeconds": 300, "idleSeconds": 5}
#: An operator that has just begun shrinks nothing anyway, in seconds.
NEW_OPERATOR_S = 35.0
#: When delayed messages are due: after the fault began, and after it ended. Seconds.
DUE_DURING, DUE_AFTER = (8.0, 25.0), (10.0, 40.0)
#: A restarted server takes so long for what it had written, at so many microseconds per key.
LOADING_KEYS, LOADING_US_PER_KEY = 1000, 15_000
FLAP_S = 5.0
#: Long tasks end so long after the trust window, and no sooner: until then there is work for all members.
OUTLASTS_S = 15.0
#: After the trust window, for what is late.
PATIENCE_S = 60.0


@dataclass(slots=True)
class Faulty:
    """One fleet with its server, and its fault."""

    name: str
    url: str
    server: RedisServer
    #: Brings the fault about, and returns when it is over.
    fault: Callable[[], None]
    #: How long it takes, about.
    seconds: float
    keeps_data: bool = True
    diary: Diary | None = None
    began_at: float = 0.0
    ended_at: float = 0.0

    def run(self) -> None:
        self.began_at = time.monotonic()
        self.fault()
        self.ended_at = time.monotonic()
        say(f"{self.name}: over after {self.ended_at - self.began_at:.1f} s")


def refused(way: TcpProxy, seconds: float) -> None:
    way.shut()
    time.sleep(seconds)  # the fault itself
    way.open()


def flaps(way: TcpProxy, seconds: float) -> None:
    for _ in range(int(seconds / (2 * FLAP_S))):
        refused(way, FLAP_S)
        time.sleep(FLAP_S)  # between two of them it answers


def loads(server: RedisServer) -> None:
    """Write all down, stop, and load it again slowly; answers LOADING meanwhile."""
    server.client.save()
    server.restart()


def fails_over(service: WatchedService) -> None:
    service.first.stop()
    wait_until(lambda: service.serving() == service.second.port, 60, "the replica to be named")


def all_kinds(parts: ExitStack, refused_s: float) -> list[Faulty]:
    """Servers up, faults ready."""

    def server(*options: str) -> RedisServer:
        made = RedisServer(valkey_binary(), *options)
        parts.callback(made.close)
        made.start()
        return made

    behind = [server(), server()]
    ways = [parts.enter_context(TcpProxy(each.port)) for each in behind]
    empty, slow = server(), server("--key-load-delay", str(LOADING_US_PER_KEY))
    slow.client.mset({f"ballast:{number}": "" for number in range(LOADING_KEYS)})
    service = parts.enter_context(WatchedService())
    loading_s = LOADING_KEYS * LOADING_US_PER_KEY / 1e6
    return [
        Faulty("refused", ways[0].url(), behind[0], lambda: refused(ways[0], refused_s), refused_s),
        Faulty("flaps", ways[1].url(), behind[1], lambda: flaps(ways[1], 60), 60),
        Faulty("empty", empty.url(), empty, empty.restart, 1, keeps_data=False),
        Faulty("loading", slow.url(), slow, lambda: loads(slow), loading_s),
        Faulty("failover", service.url, service.second, lambda: fails_over(service), 5),
    ]


def begin(rig: ProcessRig, all_: list[Faulty]) -> None:
    """Every fleet at work, and its delayed messages sent just before the fault."""
    for each in all_:
        rig.let_pods_know(f"redis-{each.name}", each.url)
        each.diary = Diary(rig, each.name, client=redis_client(each.url))
        broker = {"secretRef": {"name": f"redis-{each.name}", "key": "url"}}
        rig.make_fleet(each.name, concurrency=2, scaling=SCALING, broker=broker)
        for number in range(LONG_TASKS):
            each.diary.send(each.seconds + TRUST_SECONDS + NEW_OPERATOR_S + OUTLASTS_S, f"long-{number}")
    began = time.monotonic()
    diaries = [each.diary for each in all_ if each.diary is not None]
    wait_until(lambda: all(len(each.times("begin")) == LONG_TASKS for each in diaries), 120, "all to work")
    rig.wait_for_sizes([each.name for each in all_], MEMBERS)
    time.sleep(
        max(0.0, NEW_OPERATOR_S - (time.monotonic() - began))
    )  # until the operator is not new any more
    for each in all_:
        due = (*DUE_DURING, *(each.seconds + late for late in DUE_AFTER))
        for number, after in enumerate(due):
            assert each.diary is not None
            each.diary.send(0.5, f"due-{number}-after-{after:.0f}", delay_s=after)


def told(rig: ProcessRig, each: Faulty) -> dict[str, Any]:
    """What became of one fleet."""
    assert each.diary is not None
    until = each.ended_at + TRUST_SECONDS
    sizes = rig.sizes.seen[each.name]
    before = [size for at, size in sizes if at <= each.began_at][-1]
    during = [size for at, size in sizes if each.began_at < at <= until]
    begun, due = each.diary.times("begin"), each.diary.due
    late = {mark: round(begun[mark][0] - at, 1) for mark, at in due.items() if mark in begun}
    counts = each.diary.count()
    return {
        "fault_s": round(each.ended_at - each.began_at, 1),
        "size_before": before,
        "smallest_size_until_trusted": min([before, *during]),
        "sizes": [[round(at - each.began_at, 1), size] for at, size in sizes],
        "delayed": len(due),
        "delayed_never_ran": len(due) - len(late),
        "late_s": late,
        "keeps_data": each.keeps_data,
        "begun_again": counts["begun_again"],
        "broken_off": counts["broken_off"],
        "ended_twice": counts["ended_twice"],
    }


def measure(rig: ProcessRig, all_: list[Faulty]) -> dict[str, Any]:
    """All faults at once, and then until everything that is left is done."""
    rig.start_operator()
    begin(rig, all_)
    threads = [threading.Thread(target=each.run, name=each.name) for each in all_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(TRUST_SECONDS + 1)  # the window that is judged
    deadline = time.monotonic() + PATIENCE_S
    keeping = [each.diary for each in all_ if each.keeps_data and each.diary is not None]
    for diary in keeping:
        diary.wait_until_done(max(0.0, deadline - time.monotonic()))
    return {each.name: told(rig, each) for each in all_}


def show(result: dict[str, Any]) -> None:
    """The table."""
    rows = [
        (
            name,
            said["fault_s"],
            f"{said['smallest_size_until_trusted']} of {said['size_before']}",
            f"{said['delayed_never_ran']} of {said['delayed']}" + ("" if said["keeps_data"] else " (lost)"),
            max(said["late_s"].values(), default=None),
            said["begun_again"],
            said["broken_off"],
        )
        for name, said in result.items()
    ]
    head = ("", "fault (s)", "smallest size", "delayed not run", "latest (s)", "begun again", "broken off")
    table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--refused", type=float, default=200.0, help="seconds of the longest fault")
    parser.add_argument("--seed", type=int, default=1, help="of the pods' starts")
    parser.add_argument("--name", default="redis-faults", help="of the file under benchmarks/results")
    options = parser.parse_args()
    with ExitStack() as parts:
        all_ = all_kinds(parts, options.refused)
        rig = parts.enter_context(process_rig_or_exit(seed=options.seed))
        found = measure(rig, all_)
    save(options.name, {"seed": options.seed, "trust_s": TRUST_SECONDS, "b9": found})
    show(found)


if __name__ == "__main__":
    main()
