"""Process pods: in place of a kubelet, pods of a made-up node run as real processes of this machine.

Owns one Node object and the life of the pods that the scheduler binds to it: environment, start, readiness, exit
codes, restarts with back-off, and SIGTERM, grace, SIGKILL on deletion. Knows nothing of what the processes do.
Images are names only: every container runs on this machine's own programs, this interpreter first on its path.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import ssl
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx

from cluster.container_environment import ConfigMissing, Object, command_of, environment_of
from cluster.owned_process import bound_to_us
from cluster.pod_status import PodRun, PodStatus
from cluster.pod_status import now as kubernetes_now

logger = logging.getLogger(__name__)

#: Room of the made-up node; nothing is measured against it but what the scheduler adds up.
ROOM = {"cpu": "1000", "memory": "1000Gi", "ephemeral-storage": "1000Gi", "pods": "1000"}
#: Seconds before a container that ended is started again: doubled each time up to the second figure.
BACK_OFF_S = (0.5, 8.0)


class ProcessPods:
    """Runs the pods of one made-up node in a thread of its own; usable as a context manager.

    `start_seconds`: bounds of the drawn time between binding and start, as image pulls and sandboxes take.
    `capacity`: what the node has beside CPU and memory, such as `{"nvidia.com/gpu": "8"}`.
    `missing_images`: images that cannot be pulled.
    `longest_grace_seconds`: the node gives no pod more than this, whatever the pod asks for, as one that is
    taken away does.
    """

    def __init__(
        self,
        server: str,
        keys: Path,
        *,
        node: str = "process-pods",
        start_seconds: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        capacity: dict[str, str] | None = None,
        missing_images: frozenset[str] = frozenset(),
        longest_grace_seconds: float | None = None,
        folder: Path | None = None,
    ) -> None:
        self.node = node
        self.runs: dict[str, PodRun] = {}
        self.folder = folder or Path(tempfile.mkdtemp(prefix="astrid-process-pods-"))
        self.missing_images = missing_images
        self._longest_grace_seconds = longest_grace_seconds
        self._server, self._keys = server, keys
        self._capacity = ROOM | (capacity or {})
        self._start_seconds = start_seconds
        self._random = random.Random(seed)
        self._changed: dict[str, asyncio.Event] = {}
        self._latest: dict[str, Object] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"process pods {node}", daemon=True
        )

    def __enter__(self) -> "ProcessPods":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> "ProcessPods":
        """Make the node and begin to run what is bound to it."""
        self._thread.start()
        self._call(self._open())
        return self

    def stop(self) -> None:
        """Kill what still runs, remove its pods and the node."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    # ------------------------------------------------------------------ what tests ask

    def of(self, namespace: str) -> list[PodRun]:
        """The runs of a namespace's pods, those that are gone too, oldest first."""
        return [run for run in list(self.runs.values()) if run.namespace == namespace]

    def alive(self, namespace: str) -> list[PodRun]:
        """The runs whose pods are not gone."""
        return [run for run in self.of(namespace) if run.gone_at is None]

    def kill(self, pod: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to every container process of a pod, as the kernel or a person might."""
        for run in list(self.runs.values()):
            if run.name == pod:
                for pid in list(run.pids.values()):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, number)

    # ------------------------------------------------------------------ node and watch

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    async def _open(self) -> None:
        context = ssl.create_default_context(cafile=str(self._keys / "ca.crt"))
        context.load_cert_chain(self._keys / "admin.crt", self._keys / "admin.key")
        limits = httpx.Limits(max_connections=40)
        self._http = httpx.AsyncClient(
            base_url=self._server, verify=context, trust_env=False, timeout=30, limits=limits
        )
        await self._make_node()
        self._watching = asyncio.create_task(self._watch_for_ever())

    async def _close(self) -> None:
        self._watching.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._watching, *tasks, return_exceptions=True)
        with contextlib.suppress(httpx.HTTPError):
            for run in self.runs.values():
                if run.gone_at is None:
                    await self._remove_pod(run)
            await self._request("DELETE", f"/api/v1/nodes/{self.node}")
        await self._http.aclose()

    async def _make_node(self) -> None:
        labels = {"kubernetes.io/hostname": self.node, "kubernetes.io/os": "linux"}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "ProcessPods",
            "message": "runs pods as processes",
        }
        now = kubernetes_now()
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.node, "labels": labels},
            "status": {
                "capacity": self._capacity,
                "allocatable": self._capacity,
                "conditions": [ready | {"lastHeartbeatTime": now, "lastTransitionTime": now}],
            },
        }
        await self._request("POST", "/api/v1/nodes", node)
        # admission taints a new node until a controller has seen it; that controller does not run here
        await self._request("PATCH", f"/api/v1/nodes/{self.node}", {"spec": {"taints": None}}, merge=True)

    async def _watch_for_ever(self) -> None:
        while True:
            try:
                await self._list_and_watch()
            except (httpx.HTTPError, _WatchEnded) as failure:
                logger.info("watch of %s begins again: %r", self.node, failure)
                await asyncio.sleep(0.2)  # before the next try, as a kubelet waits

    async def _list_and_watch(self) -> None:
        query = {"fieldSelector": f"spec.nodeName={self.node}"}
        listed = (await self._http.get("/api/v1/pods", params=query)).raise_for_status().json()
        present = {pod["metadata"]["uid"] for pod in listed["items"]}
        for pod in listed["items"]:
            self._saw(pod)
        for uid in set(self._latest) - present:
            self._saw_gone(uid)
        query |= {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
        async with self._http.stream("GET", "/api/v1/pods", params=query, timeout=None) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _WatchEnded(event["object"].get("message", ""))
                if event["type"] == "DELETED":
                    self._saw_gone(event["object"]["metadata"]["uid"])
                else:
                    self._saw(event["object"])

    def _saw(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        self._latest[uid] = pod
        if uid in self._changed:
            self._changed[uid].set()
        elif pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self._changed[uid] = asyncio.Event()
            self._tasks[uid] = asyncio.create_task(self._run_pod(pod))

    def _saw_gone(self, uid: str) -> None:
        self._latest.pop(uid, None)
        if uid in self._changed:
            self._changed[uid].set()

    # ------------------------------------------------------------------ one pod

    async def _run_pod(self, pod: Object) -> None:
        metadata = pod["metadata"]
        uid, name = metadata["uid"], metadata["name"]
        folder = self.folder / metadata["namespace"] / name
        folder.mkdir(parents=True, exist_ok=True)
        run = PodRun(metadata["namespace"], name, uid, time.monotonic(), folder)
        self.runs[uid] = run
        statuses = PodStatus(pod)
        containers = {
            container["name"]: asyncio.create_task(self._run_container(run, pod, container, statuses))
            for container in pod["spec"]["containers"]
        }
        leaving = asyncio.create_task(self._is_deleted(uid))
        try:
            await self._until_over(run, leaving, containers, statuses)
            await self._end_containers(run, containers)
            await self._remove_pod(run)
        except httpx.HTTPError:
            logger.exception("pod %s/%s of %s was lost", run.namespace, run.name, self.node)
        finally:
            tasks = [leaving, *containers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            run.gone_at = run.gone_at or time.monotonic()

    async def _until_over(
        self,
        run: PodRun,
        leaving: asyncio.Task[None],
        containers: dict[str, asyncio.Task[None]],
        statuses: PodStatus,
    ) -> None:
        """Wait for the deletion; a pod all of whose containers ended for good says so before that."""
        unended = set(containers.values())
        while unended and not leaving.done():
            done, _ = await asyncio.wait([leaving, *unended], return_when=asyncio.FIRST_COMPLETED)
            for task in done & unended:
                task.result()
            unended -= done
            if done - {leaving}:
                await self._publish(run, statuses)
        await leaving

    async def _is_deleted(self, uid: str) -> None:
        while uid in self._latest and "deletionTimestamp" not in self._latest[uid]["metadata"]:
            self._changed[uid].clear()
            await self._changed[uid].wait()

    async def _end_containers(self, run: PodRun, containers: dict[str, asyncio.Task[None]]) -> None:
        run.asked_to_leave_at = time.monotonic()
        pod = self._latest.get(run.uid)
        grace = 0.0 if pod is None else float(pod["metadata"].get("deletionGracePeriodSeconds", 30))
        if self._longest_grace_seconds is not None:
            grace = min(grace, self._longest_grace_seconds)
        waiting = [task for name, task in containers.items() if name in run.pids]
        for pid in run.pids.values():  # the container's first process alone, as container runtimes do
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=grace)
            if late:
                run.was_killed = bool(run.pids)
                _signal_all(run, signal.SIGKILL)
                await asyncio.wait(late, timeout=10)

    async def _remove_pod(self, run: PodRun) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": run.uid}}
        await self._request("DELETE", f"/api/v1/namespaces/{run.namespace}/pods/{run.name}", body)

    # ------------------------------------------------------------------ one container

    async def _run_container(self, run: PodRun, pod: Object, container: Object, statuses: PodStatus) -> None:
        name = container["name"]
        policy = pod["spec"].get("restartPolicy", "Always")
        pause_s = BACK_OFF_S[0]
        await asyncio.sleep(self._random.uniform(*self._start_seconds))  # the start itself
        while run.asked_to_leave_at is None:
            command, env = await self._prepared(run, pod, container, statuses)
            if run.asked_to_leave_at is not None:
                return
            code = await self._one_start(run, name, command, env, statuses)
            run.exits.append((name, code))
            restarts = policy == "Always" or (policy == "OnFailure" and code != 0)
            statuses.ended(name, code, will_restart=restarts)
            if not restarts or run.asked_to_leave_at is not None:
                return
            await self._publish(run, statuses)
            await asyncio.sleep(pause_s)  # the back-off itself
            pause_s = min(2 * pause_s, BACK_OFF_S[1])

    async def _prepared(
        self, run: PodRun, pod: Object, container: Object, statuses: PodStatus
    ) -> tuple[list[str], dict[str, str]]:
        """Command and environment, as soon as the image can be pulled and all that is referred to is there."""
        while True:
            if container.get("image") in self.missing_images:
                reason, message = "ImagePullBackOff", f'Back-off pulling image "{container["image"]}"'
            else:
                try:
                    env = await environment_of(pod, container, self._find)
                    return command_of(container, env), env
                except ConfigMissing as missing:
                    reason, message = "CreateContainerConfigError", str(missing)
            if statuses.waits(container["name"], reason, message):
                await self._publish(run, statuses)
            await asyncio.sleep(0.5)  # before the next look, as a kubelet waits

    async def _one_start(
        self, run: PodRun, name: str, command: list[str], env: dict[str, str], statuses: PodStatus
    ) -> int:
        with (run.folder / f"{name}.log").open("ab") as log:
            try:
                process = await asyncio.create_subprocess_exec(
                    *bound_to_us(command),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                )
            except OSError as failure:
                log.write(f"{command[0]}: {failure}\n".encode())
                return 127
        run.pids[name] = process.pid
        try:
            statuses.runs(name)
            if statuses.is_ready and run.ready_at is None:
                run.ready_at = time.monotonic()
            await self._publish(run, statuses)
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its first process a container ends
            run.pids.pop(name, None)
            await process.wait()
        return code if code >= 0 else 128 - code

    # ------------------------------------------------------------------ the API

    async def _find(self, resource: str, namespace: str, name: str) -> Object | None:
        answer = await self._http.get(f"/api/v1/namespaces/{namespace}/{resource}/{name}")
        if answer.status_code == 404:
            return None
        found: Object = answer.raise_for_status().json()
        return found

    async def _publish(self, run: PodRun, statuses: PodStatus) -> None:
        path = f"/api/v1/namespaces/{run.namespace}/pods/{run.name}/status"
        await self._request("PATCH", path, {"metadata": {"uid": run.uid}, "status": statuses.document()})

    async def _request(
        self, method: str, path: str, body: Object | None = None, *, merge: bool = False
    ) -> None:
        patch = "merge-patch" if merge else "strategic-merge-patch"
        kind = f"application/{patch}+json" if method == "PATCH" else "application/json"
        content = None if body is None else json.dumps(body)
        for attempt in (1, 2, 3, 4, 5):
            try:
                answer = await self._http.request(
                    method, path, content=content, headers={"Content-Type": kind}
                )
            except httpx.TransportError:
                if attempt == 5:
                    raise
                await asyncio.sleep(0.2 * attempt)  # before the next try, as a kubelet waits
                continue
            if answer.status_code not in (404, 409):  # gone, or another pod of that name by now
                answer.raise_for_status()
            return


class _WatchEnded(Exception):  # noqa: N818 - an ending
    """The server ended the watch with an error event."""


def _signal_all(run: PodRun, number: int) -> None:
    for pid in list(run.pids.values()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
