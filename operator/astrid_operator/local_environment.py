"""What a pod's container becomes on this machine: a command line and an environment.

Owns how references of the pod template resolve without a cluster: the machine's own variables stand in for
Secrets and ConfigMaps, and the middleware that is installed here for one that a ConfigMap carries. Pure, but
for the address files it is handed; never starts a process and never shows a value.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import DEFAULT_SECRET
from astrid_operator.desired import ENLIST, MIDDLEWARE_PATH

Json = Any
#: (namespace, secret, key) → its value where one is mounted; None: it is not.
Mounted = Callable[[str, str, str], str | None]

#: Variables that describe a container's file system: on this machine its own hold.
OF_THE_CONTAINER = frozenset({"HOME"})

#: Addresses for which the machine's variable stands only where no broker of its own is named.
OF_THE_BROKER = frozenset({"REDIS_URL", "REDIS_RESULT_URL"})

#: Stands for a pod's name in a template; replaced for each member.
MEMBER_NAME = "\0member-name\0"
MEMBER_UID = "\0member-uid\0"

#: What nothing is mounted for on this machine → what stands for it: the middleware of the workers' package.
INSTALLED = {ENLIST: "astrid_workers.middleware.enlist", MIDDLEWARE_PATH: "."}

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


@dataclass(frozen=True, slots=True)
class Template:
    """All that decides how a member is started; two that are equal need no roll-out."""

    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    grace_seconds: int
    #: Variables whose value nobody here knows, with what they refer to.
    missing: tuple[str, ...] = ()
    #: The machine's own variables that would mean something else to the member.
    without: tuple[str, ...] = ()

    def environment_of(self, name: str, uid: str, machine: Mapping[str, str]) -> dict[str, str]:
        """The environment of one member, on top of the machine's own."""
        own = {
            variable: value.replace(MEMBER_NAME, name).replace(MEMBER_UID, uid)
            for variable, value in self.environment
        }
        inherited = {variable: value for variable, value in machine.items() if variable not in self.without}
        return {**inherited, **own}


def template_of(
    key: QueueKey, pod_spec: Mapping[str, Json], machine: Mapping[str, str], mounted: Mounted
) -> Template:
    """The template of the first container of `pod_spec`.

    A reference to a Secret or ConfigMap resolves to its mounted file, else to the machine's variable of the
    same name as the container's; what neither holds is left out and named in `missing`.
    """
    container = pod_spec["containers"][0]
    found: dict[str, str] = {}
    missing: list[str] = []
    without: list[str] = []
    for entry in container.get("env", ()):
        name = entry["name"]
        if name in OF_THE_CONTAINER:
            continue
        value = _value(key, entry, {**machine, **found}, mounted)
        if value is not None:
            found[name] = value
        else:
            without.append(name)
            if not _is_optional(entry):
                missing.append(f"{name} ({_origin(entry)})")
    program, *arguments = [_expanded(part, {**machine, **found}) for part in container["command"]]
    command = [
        sys.executable if program in ("python", "python3") else program,
        *(INSTALLED.get(part, part) for part in arguments),
    ]
    grace = int(pod_spec.get("terminationGracePeriodSeconds", 30))
    return Template(tuple(command), tuple(sorted(found.items())), grace, tuple(missing), tuple(without))


def _value(
    key: QueueKey, entry: Mapping[str, Json], known: Mapping[str, str], mounted: Mounted
) -> str | None:
    source = entry.get("valueFrom")
    if source is None:
        return _expanded(str(entry.get("value", "")), known)
    if "fieldRef" in source:
        return _field(key, source["fieldRef"]["fieldPath"])
    reference = source.get("secretKeyRef")
    if reference is not None:
        text = mounted(key.namespace, reference["name"], reference["key"])
        if text is not None:
            return text
        if entry["name"] in OF_THE_BROKER and reference["name"] != DEFAULT_SECRET:
            return None
    return known.get(entry["name"])


def _field(key: QueueKey, path: str) -> str | None:
    fields = {
        "metadata.name": MEMBER_NAME,
        "metadata.uid": MEMBER_UID,
        "metadata.namespace": key.namespace,
        "spec.nodeName": "localhost",
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
    }
    return fields.get(path)


def _is_optional(entry: Mapping[str, Json]) -> bool:
    return any(
        isinstance(reference, Mapping) and reference.get("optional")
        for reference in (entry.get("valueFrom") or {}).values()
    )


def _origin(entry: Mapping[str, Json]) -> str:
    for kind, reference in (entry.get("valueFrom") or {}).items():
        if "name" in reference:
            return f"{kind.removesuffix('KeyRef')} {reference['name']}/{reference['key']}"
        return f"{kind} {next(iter(reference.values()), '')}"
    return "no value"


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it: only where NAME is known; `$$` is one dollar."""

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else values.get(name, match.group(0))

    return _REFERENCE.sub(replacement, text)
