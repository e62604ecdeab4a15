"""B5 and B6: tasks that a shrinking fleet breaks off or runs twice; and a last task longer than any cooldown.

Real workers as pods on a node that gives nobody more than `--grace` seconds to end, less than the tasks take:
whoever ends a busy pod breaks a task off. Beside our fleets, with the same tasks, plain Dramatiq workers in a
Deployment that a model of KEDA sizes in real time (`keda_model.py`). What happened is counted from what each
task wrote.

    python benchmarks/scaling/interruptions.py --seed 1     # about 5 minutes
"""

import argparse
import random
import time
from typing import Any

from process_rig import LIST_SCALED, Diary, KedaThread, ProcessRig, process_rig_or_exit, table
from rig import save, say

#: Members at most, and what the fleet is told of its tasks.
MOST = 6
SCALING = {"maxReplicas": MOST, "expectedTaskSeconds": 8, "targetDrainSeconds": 10, "idleSeconds": 5}
#: Bursts of so many tasks, begun so many seconds apart.
BURSTS, TASKS_PER_BURST, BURST_EVERY_S = 3, 24, 60.0
#: Seconds of a task: at least, mean of what comes on top, at most.
TASK_S = (2.0, 6.0, 20.0)
#: The last long task, in seconds, and how many of them.
LONG_S, LONG_TASKS = 45.0, 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grace", type=float, default=2.0, help="seconds that the node gives a pod to end")
    parser.add_argument("--name", default="interruptions", help="of the file under benchmarks/results")
    options = parser.parse_args()
    result: dict[str, Any] = {"seed": options.seed, "grace_s": options.grace}
    with process_rig_or_exit(longest_grace_seconds=options.grace, seed=options.seed) as rig:
        rig.start_operator()
        result |= measure(rig, options.seed)
    save(options.name, result)
    show(result)


def measure(rig: ProcessRig, seed: int) -> dict[str, Any]:
    """All fleets at once, so that every contender has the same machine."""
    last = {f"last-{number}": f"klast-{number}" for number in range(LONG_TASKS)}
    names = {"astrid": ["ours", *last], "keda": ["keda", *last.values()]}
    diaries = {name: Diary(rig, name) for group in names.values() for name in group}
    for name in names["astrid"]:
        rig.make_fleet(name, scaling=SCALING)
    deciders = []
    for name in names["keda"]:
        rig.make_deployment(name, 0)
        profile = {"profile": LIST_SCALED} if name.startswith("klast") else {}
        deciders.append(KedaThread(rig, diaries[name], most=MOST, seed=seed, **profile))
    for each in deciders:
        each.start()
    for name in [*last, *last.values()]:
        diaries[name].send(LONG_S, "long")
    send_bursts([diaries["ours"], diaries["keda"]], random.Random(seed))
    for name, diary in diaries.items():
        say(f"{name}: {'all done' if diary.wait_until_done(120) else 'NOT all done'}")
    for each in deciders:
        each.stop()
    return {
        "b5": {"astrid": told(rig, diaries, ["ours"]), "keda": told(rig, diaries, ["keda"])},
        "b6": {
            "astrid": told(rig, diaries, list(last)),
            "keda": told(rig, diaries, list(last.values())),
        },
    }


def send_bursts(diaries: list[Diary], rng: random.Random) -> None:
    """The same tasks to each."""
    least, mean, most = TASK_S
    for burst in range(BURSTS):
        begun = time.monotonic()
        for number in range(TASKS_PER_BURST):
            seconds = round(min(most, least + rng.expovariate(1 / mean)), 2)
            for diary in diaries:
                diary.send(seconds, f"b{burst}-{number}")
        say(f"burst {burst + 1} of {BURSTS} sent")
        if burst + 1 < BURSTS:
            time.sleep(max(0.0, BURST_EVERY_S - (time.monotonic() - begun)))  # the load itself


def told(rig: ProcessRig, diaries: dict[str, Diary], names: list[str]) -> dict[str, Any]:
    """Counts of all `names` together, what the node did, and when the last task ended."""
    counts: dict[str, Any] = {}
    for name in names:
        for what, count in diaries[name].count().items():
            counts[what] = counts.get(what, 0) + count
    runs = [run for name in names for run in rig.runs_of(name)]
    ends = [at for name in names for times in diaries[name].times("end").values() for at in times]
    first = min(min(diaries[name].sent.values()) for name in names)
    sizes = {name: [size for _, size in rig.sizes.seen[name]] for name in names}
    return {
        **counts,
        "pods": len(runs),
        "pods_killed_after_grace": sum(run.was_killed for run in runs),
        "last_end_s": round(max(ends) - first, 1) if ends else None,
        "sizes": sizes,
    }


def show(result: dict[str, Any]) -> None:
    """The table, with the bars."""
    head = ("", "tasks", "broken off", "ran twice", "never ended", "pods killed", "last end (s)", "bar")
    rows = []
    for part, bar in (("b5", "0 broken off, 0 twice"), ("b6", "ends, once")):
        for who, said in result[part].items():
            rows.append(
                (
                    f"{part.upper()} {who}", said["tasks"], said["broken_off"], said["ended_twice"],
                    said["never_ended"], said["pods_killed_after_grace"], said["last_end_s"],
                    bar if who == "astrid" else "",
                )
            )  # fmt: skip
    table(head, rows)


if __name__ == "__main__":
    main()
