"""What is known of one pod that runs as processes: what happened to it, and the status that tells of it.

Owns the words of a kubelet; starts, asks and ends nothing.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cluster.container_environment import Object


@dataclass
class PodRun:
    """What happened to one pod; times are `time.monotonic()` of this machine."""

    namespace: str
    name: str
    uid: str
    bound_at: float
    folder: Path
    ready_at: float | None = None
    asked_to_leave_at: float | None = None
    gone_at: float | None = None
    #: Process ids of the running containers by name.
    pids: dict[str, int] = field(default_factory=dict)
    #: (container, exit code) of every process that ended, in order; a signal n is 128 + n.
    exits: list[tuple[str, int]] = field(default_factory=list)
    #: The grace was over and SIGKILL was sent.
    was_killed: bool = False

    def log(self, container: str | None = None) -> str:
        """What its containers wrote, all starts of them."""
        paths = sorted(self.folder.glob(f"{container or '*'}.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)


class PodStatus:
    """The status of one pod, built from what its containers go through."""

    def __init__(self, pod: Object) -> None:
        self._started = now()
        self._restart_policy = pod["spec"].get("restartPolicy", "Always")
        self._containers: dict[str, Object] = {
            container["name"]: {
                "name": container["name"],
                "image": container.get("image", ""),
                "imageID": "",
                "ready": False,
                "started": False,
                "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}},
            }
            for container in pod["spec"]["containers"]
        }

    @property
    def is_ready(self) -> bool:
        return all(each["ready"] for each in self._containers.values())

    def runs(self, name: str) -> None:
        self._containers[name] |= {
            "ready": True,
            "started": True,
            "state": {"running": {"startedAt": now()}},
            "containerID": f"process://{name}",
        }

    def waits(self, name: str, reason: str, message: str) -> bool:
        """False when nothing changed."""
        state = {"waiting": {"reason": reason, "message": message}}
        changed = self._containers[name]["state"] != state
        self._containers[name]["state"] = state
        return changed

    def ended(self, name: str, code: int, *, will_restart: bool) -> None:
        container = self._containers[name]
        terminated: Object = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": container["state"].get("running", {}).get("startedAt", self._started),
            "finishedAt": now(),
        }
        if code > 128:
            terminated["signal"] = code - 128
        container |= {"ready": False, "started": False}
        if not will_restart:
            container["state"] = {"terminated": terminated}
            return
        container["lastState"] = {"terminated": terminated}
        container["restartCount"] += 1
        message = "back-off restarting failed container"
        container["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}

    def document(self) -> Object:
        ready = "True" if self.is_ready else "False"
        conditions = [
            {"type": "Initialized", "status": "True", "lastTransitionTime": self._started},
            {"type": "ContainersReady", "status": ready, "lastTransitionTime": now()},
            {"type": "Ready", "status": ready, "lastTransitionTime": now()},
        ]
        return {
            "phase": self._phase(),
            "conditions": conditions,
            "startTime": self._started,
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "hostIP": "127.0.0.1",
            "containerStatuses": list(self._containers.values()),
        }

    def _phase(self) -> str:
        states = [each["state"] for each in self._containers.values()]
        if all("terminated" in state for state in states):
            failed = any(state["terminated"]["exitCode"] for state in states)
            return "Failed" if failed else "Succeeded"
        has_started = any("running" in state or "terminated" in state for state in states)
        has_run = any(each["restartCount"] for each in self._containers.values())
        return "Running" if has_started or has_run else "Pending"


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
