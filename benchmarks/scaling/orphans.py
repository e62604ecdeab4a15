"""B8: every worker of a fleet is killed by SIGKILL, and nothing else happens; when do its tasks run again?

Pods on a node restart their container; a fleet *from zero* has no worker left at all when its AstridQueue
begins to serve (its last worker was a process outside the cluster). Beside them plain Dramatiq workers in a
Deployment, whose recovery is a matter of chance. Times run from the kill to a task's second beginning.

    python benchmarks/scaling/orphans.py --seed 1     # about 5 minutes
"""

import argparse
import os
import subprocess
import sys
import time
from signal import SIGKILL
from typing import Any

from process_rig import PLAIN, Diary, ProcessRig, process_rig_or_exit, table
from rig import save, say, spread

from cluster.owned_process import bound_to_us
from support.waiting import wait_until

#: A task outlives the benchmark: only its beginnings count.
TASK_S = 900.0
WORKERS = 2
#: Seconds for which a second beginning is waited for.
PATIENCE_S = 240.0
BAR_S = 80.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fleets", type=int, default=3, help=f"of each kind, {WORKERS} tasks each")
    parser.add_argument("--name", default="orphans", help="of the file under benchmarks/results")
    options = parser.parse_args()
    with process_rig_or_exit(seed=options.seed, longest_grace_seconds=0.0) as rig:
        rig.start_operator()
        result = {"seed": options.seed, "patience_s": PATIENCE_S, "b8": measure(rig, options.fleets)}
    save(options.name, result)
    show(result)


def measure(rig: ProcessRig, fleets: int) -> dict[str, Any]:
    """All fleets at once."""
    kinds = ("astrid", "astrid from zero", "plain image from zero", "plain Deployment")
    diaries = {
        kind: [Diary(rig, f"{kind.replace(' ', '').lower()}{number}") for number in range(fleets)]
        for kind in kinds
    }
    outside: dict[str, subprocess.Popen[bytes]] = {}
    for kind, group in diaries.items():
        for diary in group:
            for number in range(WORKERS):
                diary.send(TASK_S, f"task-{number}")
            if kind == "astrid":
                rig.make_fleet(diary.queue, scaling={"mode": "Manual"}, replicas=WORKERS)
            elif kind == "plain Deployment":
                # by default one of the two may fetch both messages, and the other never works
                rig.make_deployment(diary.queue, WORKERS, dramatiq_queue_prefetch="1")
            else:
                env = PLAIN if kind.startswith("plain") else {}
                rig.make_fleet(diary.queue, env=env, enabled=False, scaling={"maxReplicas": WORKERS})
                outside[diary.queue] = start_outside(rig, diary.queue, env)
    everyone = [diary for group in diaries.values() for diary in group]
    try:
        wait_until(lambda: all(len(each.times("begin")) == WORKERS for each in everyone), 180, "all to work")
    except AssertionError:
        say(f"begun so far: { {each.queue: len(each.times('begin')) for each in everyone} }")
        for process in outside.values():
            os.killpg(process.pid, SIGKILL)
        raise
    killed = {diary.queue: kill(rig, diary.queue, outside.get(diary.queue)) for diary in everyone}
    say("all workers are killed")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and not all(again(each, killed) for each in everyone):
        time.sleep(1)  # until all are back, or patience ends
    return {kind: told(group, killed) for kind, group in diaries.items()}


def start_outside(rig: ProcessRig, queue: str, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Workers that are no pods."""
    variables = {**os.environ, **rig.variables(), "WORKER_QUEUE": queue, "POD_NAME": "outside", **env}
    command = [sys.executable, "-m", "dramatiq", "bench_app", "--queues", queue]
    command += ["--processes", "1", "--threads", str(WORKERS)]
    log = (rig.plane.logs / f"{queue}.log").open("wb")
    return subprocess.Popen(
        bound_to_us(command),
        env={**variables, "REDIS_URL": rig.redis.url()},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def kill(rig: ProcessRig, queue: str, outside: "subprocess.Popen[bytes] | None") -> float:
    """End every worker of a queue at once; when that was."""
    if outside is None:
        for run in rig.alive(queue):
            rig.pods.kill(run.name, SIGKILL)
        return time.time()
    os.killpg(outside.pid, SIGKILL)
    outside.wait()
    at = time.time()
    rig.edit_queues([queue], enabled=True)
    return at


def again(diary: Diary, killed: dict[str, float]) -> list[float]:
    """Seconds from the kill to each task's second beginning, once all have begun again; empty before."""
    at = killed[diary.queue]
    later = [[each - at for each in times if each > at] for times in diary.times("begin").values()]
    return [min(each) for each in later] if all(later) and len(later) == WORKERS else []


def told(group: list[Diary], killed: dict[str, float]) -> dict[str, Any]:
    """Seconds until tasks began again, and how many did not in time."""
    found = []
    for diary in group:
        at = killed[diary.queue]
        for times in diary.times("begin").values():
            found += sorted(each - at for each in times if each > at)[:1]
    tasks = len(group) * WORKERS
    return {"tasks": tasks, "not_back": tasks - len(found), "seconds": spread(found), "raw": found}


def show(result: dict[str, Any]) -> None:
    """The table, with the bar."""
    rows = []
    for kind, said in result["b8"].items():
        seconds = said["seconds"]
        bar = f"all within {BAR_S:.0f}" if kind != "plain Deployment" else ""
        late = f"{said['not_back']} in {PATIENCE_S:.0f} s"
        rows.append((f"B8 {kind}", said["tasks"], seconds["p50"], seconds["max"], late, bar))
    table(("", "tasks", "p50 (s)", "max (s)", "not back", "bar"), rows)


if __name__ == "__main__":
    main()
