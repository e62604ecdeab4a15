"""The same trials for our operator and for a KEDA that runs: bursts, ways down, many queues, no Redis.

Owns what is done and noted; never who wins. Times are those of the rig's watch on Deployments, requests those
of the API server's own counters, so that both contenders are seen by the same eyes.
"""

import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
from keda_contender import Contender
from rig import Rig, message_body, say, spread

from support.waiting import wait_until

#: Messages of a burst, and the most members: what 0 → 100 means.
BURST, MOST = 1000, 100
#: Tasks that are left in work on the way down, and messages per queue where there are many.
IN_WORK, FEW = 50, 10

_READS = frozenset({"GET", "LIST", "WATCH", "CONNECT"})


# ---------------------------------------------------------------------- one queue after another


def bursts(
    rig: Rig, contender: Contender, *, queues: int, rounds: int, within_s: float, rng: random.Random
) -> dict[str, Any]:
    """B1. Fresh queues in each round, filled at random moments of `within_s`; seconds to 1 and to 100."""
    first, full, sizes, since = [], [], [], {}
    names: list[str] = []
    for number in range(rounds):
        if names:
            drop(rig, names)
            contender.forget(names)
        names = [f"{_word(contender)}-{number}-{each}" for each in range(queues)]
        contender.make(names, MOST)
        wait_until(lambda: contender.have_begun(names), 120, "everything to be made", every_s=0.5)  # noqa: B023
        rig.wait_for_sizes(names, 0)
        since = _push_at_random(rig, names, within_s, rng)
        for name, pushed in since.items():
            left = pushed + 150 - time.monotonic()
            full.append(rig.sizes.wait([name], MOST, pushed, max(0, left)).get(name))
            first.append(rig.sizes.wait([name], 1, pushed, 0).get(name))
            sizes.append(rig.sizes.writes_since(name, pushed))
        say(f"B1 {contender.name} {number + 1}/{rounds}: to {MOST} {_list(full[-queues:])}")
    return {
        "to_1_s": spread([each for each in first if each is not None]),
        "to_100_s": spread([each for each in full if each is not None]),
        "to_100_mean_s": _mean(full),
        "not_within_150_s": full.count(None),
        "raw_to_1_s": first,
        "raw_to_100_s": full,
        "sizes_written": sizes,
        "load_average": os.getloadavg()[0],
        "down": _down(rig, contender, names, rng),
    }


def _down(rig: Rig, contender: Contender, names: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """100 members; all messages are taken up and `IN_WORK` of them stay in work; then those end too."""
    time.sleep(rng.uniform(0, 5))
    taken = time.monotonic()
    for name in names:
        take_up(rig, name, IN_WORK)
    wait_s = 345 if contender.name == "default" else 75
    time.sleep(wait_s)  # that nothing happens is what is looked for
    while_busy = {name: _later(rig, name, taken) for name in names}
    smallest = [min((size for _, size in each), default=MOST) for each in while_busy.values()]
    ended = time.monotonic()
    drop(rig, names)
    rig.wait_for_sizes(names, 0, timeout_s=330)
    after = {name: _later(rig, name, ended) for name in names}
    say(f"down {contender.name}: smallest with {IN_WORK} in work {smallest}")
    return {
        "in_work": IN_WORK,
        "watched_s": wait_s,
        "smallest_while_in_work": smallest,
        "sizes_while_in_work": while_busy,
        "sizes_after_the_last_ended": after,
        "empty_to_0_s": spread([each[-1][0] for each in after.values() if each]),
    }


def _push_at_random(rig: Rig, names: Sequence[str], within_s: float, rng: random.Random) -> dict[str, float]:
    """Queue → when its burst was there."""
    began = time.monotonic()
    since = {}
    for at, name in sorted((rng.uniform(0, within_s), name) for name in names):
        time.sleep(max(0.0, began + at - time.monotonic()))  # the random phase itself
        since[name] = rig.push([name], BURST)
    return since


# ---------------------------------------------------------------------- Redis goes away


def outage(
    rig: Rig, contenders: Sequence[Contender], *, queues: int, away_s: float, rng: random.Random
) -> dict[str, Any]:
    """B9. Ten members each; Redis refuses for `away_s` and comes back empty. When does who shrink?"""
    names = {each.name: [f"{_word(each)}-away-{n}" for n in range(queues)] for each in contenders}
    for each in contenders:
        each.make(names[each.name], 10)
    for each in contenders:
        mine = names[each.name]
        wait_until(lambda: each.have_begun(mine), 120, "everything to be made", every_s=0.5)  # noqa: B023
    everybody = [name for mine in names.values() for name in mine]
    rig.push(everybody, BURST)
    rig.wait_for_sizes(everybody, 10, timeout_s=120)
    time.sleep(rng.uniform(5, 15))
    left = time.monotonic()
    rig.redis.stop()
    time.sleep(away_s)
    rig.redis.start()
    back = time.monotonic()
    rig.wait_for_sizes(everybody, 0, timeout_s=420)
    found = {}
    for each in contenders:
        during = {name: _between(rig, name, left, back) for name in names[each.name]}
        after = {name: _later(rig, name, back) for name in names[each.name]}
        found[each.name] = {
            "shrank_while_away": sum(bool(sizes) for sizes in during.values()),
            "first_shrink_after_return_s": spread([sizes[0][0] for sizes in after.values() if sizes]),
            "to_0_after_return_s": spread([sizes[-1][0] for sizes in after.values() if sizes]),
            "sizes_after_return": after,
        }
        say(f"outage {each.name}: {found[each.name]['first_shrink_after_return_s']}")
    return {"away_s": away_s, "queues": queues, "contenders": found, "load_average": os.getloadavg()[0]}


# ---------------------------------------------------------------------- many queues


def many(
    rig: Rig, contender: Contender, *, count: int, trials: int, seconds: float, rng: random.Random
) -> dict[str, Any]:
    """B4, B2 and B3 in this order with `count` queues of at most two members."""
    names = [f"{_word(contender)}-{number:04d}" for number in range(count)]
    result: dict[str, Any] = {"queues": count}
    with costs(rig, contender) as made:
        began = time.monotonic()
        contender.make(names, 2)
        applied = time.monotonic() - began
        wait_until(lambda: contender.have_begun(names), 300, "everything to be made", every_s=0.2)
        begun = time.monotonic() - began
    result["b4"] = {"applied_s": round(applied, 1), "begun_s": round(begun, 1), "cost": asdict(made)}
    say(f"B4 {contender.name}: {count} applied in {applied:.1f} s, begun after {begun:.1f} s")
    rig.wait_for_sizes(names, 0)
    with costs(rig, contender) as idle:
        time.sleep(seconds / 2)
    first, full = [], []
    for trial in range(trials):
        if trial:
            drop(rig, names)
            rig.wait_for_sizes(names, 0, timeout_s=330)
        time.sleep(rng.uniform(0, 5))
        pushed = rig.push(names, FEW)
        full += rig.sizes.wait(names, 2, pushed, 100).values()
        first += rig.sizes.wait(names, 1, pushed, 0).values()
        say(f"B2 {contender.name} {trial + 1}/{trials}: to 1 {spread(first)}, to 2 {spread(full)}")
    result["b2"] = {
        "to_1_s": spread(first),
        "to_2_s": spread(full),
        "asked": count * trials,
        "not_within_100_s": count * trials - len(full),
        "raw_to_2_s": [round(each, 2) for each in full],
    }
    ended = threading.Event()
    mover = threading.Thread(target=_move, args=(rig, names, ended, rng))
    mover.start()
    time.sleep(15)
    with costs(rig, contender) as active:
        time.sleep(seconds)
    ended.set()
    mover.join()
    say(f"B3 {contender.name}: {active.writes_per_s:.2f} writes/s, {active.reads_per_s:.2f} reads/s")
    result["b3"] = {"idle": asdict(idle), "active": asdict(active)}
    return result


def _move(rig: Rig, names: Sequence[str], ended: threading.Event, rng: random.Random) -> None:
    """Every second another number of messages waits on every queue, between 8 and 40."""
    depth = dict.fromkeys(names, FEW)
    while not ended.wait(1.0):
        with rig.redis.client.pipeline(transaction=False) as pipeline:
            for name, now in depth.items():
                up = now <= 8 or (now < 40 and rng.random() < 0.6)
                depth[name] += 1 if up else -1
                if up:
                    key = secrets.token_hex(8)
                    pipeline.hset(f"dramatiq:{name}.msgs", key, message_body(name))
                    pipeline.rpush(f"dramatiq:{name}", key)
                else:
                    pipeline.lpop(f"dramatiq:{name}")
            pipeline.execute()


@dataclass
class Costs:
    """What a stretch of time cost: requests served by the API server, and cores of each process."""

    seconds: float = 0.0
    writes_per_s: float = 0.0
    reads_per_s: float = 0.0
    by_request: dict[str, int] = field(default_factory=dict)
    cores: dict[str, float] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)
    load_average: float = 0.0


@contextmanager
def costs(rig: Rig, contender: Contender) -> Iterator[Costs]:
    """Over the time inside the `with`. All requests on objects count, whoever sent them."""
    pids = {**contender.pids(), **{name: part.pid for name, part in rig.plane.components.items()}}
    found = Costs()
    began, before, cpu = time.monotonic(), rig.requests(), _cpu_seconds(pids)
    yield found
    found.seconds = time.monotonic() - began
    difference = Counter({key: count for key, count in (rig.requests() - before).items() if key.split()[1:]})
    reads = sum(count for key, count in difference.items() if key.split()[0] in _READS)
    found.reads_per_s = reads / found.seconds
    found.writes_per_s = (difference.total() - reads) / found.seconds
    found.by_request = dict(difference.most_common(25))
    found.cores = {
        name: round((seconds - cpu[name]) / found.seconds, 3) for name, seconds in _cpu_seconds(pids).items()
    }
    found.rss_mb = {name: round(psutil.Process(pid).memory_info().rss / 1e6, 1) for name, pid in pids.items()}
    found.load_average = os.getloadavg()[0]


def _cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: each.user + each.system for name, each in times.items()}


# ---------------------------------------------------------------------- queues and sizes


def take_up(rig: Rig, queue: str, in_work: int) -> None:
    """Nothing waits, `in_work` messages are being worked on: as Dramatiq keeps them, bodies without ids."""
    bodies = f"dramatiq:{queue}.msgs"
    ids = rig.redis.client.hkeys(bodies)
    with rig.redis.client.pipeline(transaction=True) as pipeline:
        pipeline.delete(f"dramatiq:{queue}")
        pipeline.hdel(bodies, *ids[in_work:])
        pipeline.execute()


def drop(rig: Rig, names: Sequence[str]) -> None:
    """Empty these queues, as if everything had been worked off."""
    rig.redis.client.delete(*[f"dramatiq:{name}{end}" for name in names for end in ("", ".msgs")])


def _later(rig: Rig, name: str, since: float) -> list[tuple[float, int]]:
    """(seconds since then, size) of each size that was set."""
    return [(round(at - since, 2), size) for at, size in rig.sizes.seen[name] if at >= since]


def _between(rig: Rig, name: str, since: float, until: float) -> list[tuple[float, int]]:
    return [each for each in _later(rig, name, since) if each[0] < until - since]


def _word(contender: Contender) -> str:
    return "".join(each if each.isalnum() else "-" for each in contender.name)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return round(sum(known) / len(known), 2) if known else None


def _list(values: Sequence[float | None]) -> str:
    return ", ".join("never" if each is None else f"{each:.1f}" for each in values)
