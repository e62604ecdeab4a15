"""B14: a healthy worker whose prefetch windows are full sends nothing; is its running task executed twice?

The set-up of a known flaw: one worker runs a long task, its window of messages and its window of delayed
messages are full, so that it asks Redis for nothing; after a minute another worker takes it for dead. Here
that other one cleans up with every command (Dramatiq does with every thousandth), so that luck plays no part.
Contenders, side by side: plain Dramatiq in a Deployment; the same image under an AstridQueue; and with
Astrid's middleware. Counted from what each task wrote.

    python benchmarks/scaling/full_prefetch.py --seed 1     # about 4 minutes
"""

import argparse
import time
from typing import Any

from process_rig import PLAIN, Diary, ProcessRig, process_rig_or_exit, table
from rig import save, say

from support.waiting import wait_until

#: The long task, in seconds; Dramatiq takes a silent worker for dead after 60.
LONG_S = 110.0
#: Delayed messages that fill a window: Dramatiq alone 1,000 per thread, under an AstridQueue 100.
WINDOW = {"plain": 1000, "plain image": 100, "astrid": 100}
ALWAYS = {"BENCH_MAINTENANCE": "1000000"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fleets", type=int, default=3, help="of each kind")
    parser.add_argument("--name", default="full-prefetch", help="of the file under benchmarks/results")
    options = parser.parse_args()
    with process_rig_or_exit(seed=options.seed) as rig:
        rig.start_operator()
        result = {"seed": options.seed, "long_s": LONG_S, "b14": measure(rig, options.fleets)}
    save(options.name, result)
    show(result)


def measure(rig: ProcessRig, fleets: int) -> dict[str, Any]:
    """All fleets at once: one full worker each, then a second worker that looks for the dead."""
    diaries: dict[str, list[Diary]] = {}
    for kind, window in WINDOW.items():
        diaries[kind] = [Diary(rig, f"{kind.replace(' ', '')}{number}") for number in range(fleets)]
        for diary in diaries[kind]:
            for number in range(window):
                diary.send(0.0, f"later-{number}", delay_s=3600)
            diary.sent.clear()
            diary.send(LONG_S, "long")
            if kind == "plain":  # its window of messages has room for two
                diary.send(0.1, "next")
            make(rig, kind, diary.queue)
    everyone = [(kind, diary) for kind, group in diaries.items() for diary in group]
    wait_until(lambda: all("long" in each.times("begin") for _, each in everyone), 120, "long tasks")
    what = "all windows to be full"
    wait_until(lambda: all(is_full(diary, WINDOW[kind]) for kind, diary in everyone), 60, what)
    for kind, diary in everyone:
        rig.grow(diary.queue, 2, is_queue=kind != "plain")
    say("all windows are full, and every fleet has a second worker")
    for _, diary in everyone:
        diary.wait_until_done(LONG_S + 60)
    time.sleep(20)  # a second run of the long task may still begin
    return {kind: told(group) for kind, group in diaries.items()}


def make(rig: ProcessRig, kind: str, name: str) -> None:
    """One worker."""
    if kind == "plain":
        rig.make_deployment(name, 1, **ALWAYS)
        return
    env = {**ALWAYS, **(PLAIN if kind == "plain image" else {})}
    rig.make_fleet(name, env=env, scaling={"mode": "Manual"}, replicas=1)


def is_full(diary: Diary, window: int) -> bool:
    """Nothing waits that its one worker could still fetch."""
    client = diary.server.client
    waiting = client.llen(f"dramatiq:{diary.queue}") + client.llen(f"dramatiq:{diary.queue}.DQ")
    return not waiting and int(client.hlen(f"dramatiq:{diary.queue}.DQ.msgs")) >= window


def told(group: list[Diary]) -> dict[str, Any]:
    """Counts of all fleets of a kind, and when second runs began, in seconds after the first."""
    begun = [diary.times("begin")["long"] for diary in group]
    return {
        "tasks": len(group),
        "begun_again": sum(len(times) - 1 for times in begun),
        "after_s": [round(at - times[0], 1) for times in begun for at in times[1:]],
        "ended": sum(bool(diary.times("end").get("long")) for diary in group),
    }


def show(result: dict[str, Any]) -> None:
    """The table, with the bar."""
    rows = [
        (f"B14 {kind}", said["tasks"], said["begun_again"], said["after_s"], "0" if kind == "astrid" else "")
        for kind, said in result["b14"].items()
    ]
    table(("", "long tasks", "begun a second time", "after (s)", "bar"), rows)


if __name__ == "__main__":
    main()
