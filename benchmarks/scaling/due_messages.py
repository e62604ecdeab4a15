"""B7: a delayed message at zero runs at its time, and no pod is there before it must be.

Three kinds of queue, all at zero: with one delayed message; with one that was sent *after* 100,000 messages
for next week, behind which it stands in Dramatiq's list; and with one sent before these. Beside them plain
workers that a model of KEDA sizes by the list of ready messages: nothing ever wakes them.

    python benchmarks/scaling/due_messages.py --seed 1     # about 4 minutes
"""

import argparse
import json
import random
import secrets
import time
from typing import Any

from process_rig import LIST_SCALED, Diary, KedaThread, PodLog, ProcessRig, process_rig_or_exit, table
from rig import save, say

#: Messages for next week, and when they are due, in seconds.
MANY, NEXT_WEEK_S = 100_000, 6 * 86400.0
#: Bounds of the time until the one message is due, in seconds.
DUE_S = (40.0, 110.0)
#: For how long it is waited for after its time, in seconds.
PATIENCE_S = 60.0
BAR_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--queues", type=int, default=6, help="with one message alone")
    parser.add_argument("--crowded", type=int, default=2, help="with 100,000 others, before it and after it")
    parser.add_argument("--name", default="due-messages", help="of the file under benchmarks/results")
    options = parser.parse_args()
    with process_rig_or_exit(seed=options.seed) as rig:
        rig.start_operator()
        b7 = measure(rig, options.queues, options.crowded, random.Random(options.seed))
    result = {"seed": options.seed, "b7": b7}
    save(options.name, result)
    show(result)


def measure(rig: ProcessRig, queues: int, crowded: int, rng: random.Random) -> dict[str, Any]:
    """All queues at once."""
    counts = {"alone": queues, "behind": crowded, "before": crowded, "keda": 1}
    diaries = {
        kind: [Diary(rig, f"{kind}{number}") for number in range(count)] for kind, count in counts.items()
    }
    scaling = {"idleSeconds": 5, "expectedTaskSeconds": 1, "maxReplicas": 3}
    for kind, group in diaries.items():
        for diary in group:
            if kind == "keda":
                rig.make_deployment(diary.queue, 0)
            else:
                rig.make_fleet(diary.queue, scaling=scaling)
    keda = KedaThread(rig, diaries["keda"][0], most=3, seed=1, profile=LIST_SCALED)
    keda.start()
    say(f"sending {2 * crowded} times {MANY} messages for next week")
    for diary in diaries["behind"]:
        fill(diary)
    logs = {}
    for kind, group in diaries.items():
        for diary in group:
            logs[diary.queue] = PodLog(rig, diary.queue)
            logs[diary.queue].start()
            diary.send(0.0, "due", delay_s=rng.uniform(*DUE_S))
            if kind == "before":
                fill(diary)
    last = max(diary.due["due"] for group in diaries.values() for diary in group)
    mine = [diary for kind, group in diaries.items() if kind != "keda" for diary in group]
    while time.time() < last + PATIENCE_S and not all("due" in each.times("begin") for each in mine):
        time.sleep(0.5)  # until the last one is due, or patience ends
    keda.stop()
    return {kind: [told(diary, logs[diary.queue]) for diary in group] for kind, group in diaries.items()}


def fill(diary: Diary) -> None:
    """`MANY` messages for next week, as Dramatiq keeps them."""
    eta = int((time.time() + NEXT_WEEK_S) * 1000)
    body = json.dumps(
        {
            "queue_name": f"{diary.queue}.DQ",
            "actor_name": "work",
            "args": [0.0, "far"],
            "kwargs": {},
            "options": {"eta": eta, "redis_message_id": "?"},
            "message_id": "?",
            "message_timestamp": int(time.time() * 1000),
        }
    )
    for _ in range(MANY // 5000):
        ids = [secrets.token_hex(8) for _ in range(5000)]
        with diary.server.client.pipeline(transaction=False) as pipeline:
            bodies = {each: body.replace("?", each) for each in ids}
            pipeline.hset(f"dramatiq:{diary.queue}.DQ.msgs", mapping=bodies)
            pipeline.rpush(f"dramatiq:{diary.queue}.DQ", *ids)
            pipeline.execute()


def told(diary: Diary, log: PodLog) -> dict[str, Any]:
    """How late it ran (negative: early), and how long before its time the first pod was there."""
    due = diary.due["due"]
    begun = diary.times("begin").get("due")
    first_pod = next((at for at, pods in log.stop() if pods), None)
    return {
        "due_after_s": round(due - diary.sent["due"], 1),
        "late_s": round(begun[0] - due, 2) if begun else None,
        "runs": len(begun or ()),
        "first_pod_before_s": round(due - first_pod, 1) if first_pod is not None else None,
    }


def show(result: dict[str, Any]) -> None:
    """The table, with the bar."""
    rows = []
    for kind, found in result["b7"].items():
        late = [each["late_s"] for each in found]
        pods = [each["first_pod_before_s"] for each in found]
        bar = f"each within {BAR_S:.0f} s, once" if kind != "keda" else ""
        rows.append((f"B7 {kind}", len(found), late, [each["runs"] for each in found], pods, bar))
    table(("", "messages", "late (s)", "runs", "first pod before its time (s)", "bar"), rows)


if __name__ == "__main__":
    main()
