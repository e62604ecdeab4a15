"""What a container's process gets as environment, arguments and command, resolved as a kubelet would.

Owns Secret, ConfigMap and downward-API references and `$(NAME)` expansion; never starts a process.
"""

import base64
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Object = dict[str, Any]
#: Finds an object: (resource plural, namespace, name) → the object, or None.
Find = Callable[[str, str, str], Awaitable[Object | None]]

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


class ConfigMissing(Exception):  # noqa: N818 - named for what it is
    """A reference that resolves to nothing: the kubelet's CreateContainerConfigError, with its sentence."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where NAME is known; `$$` is one dollar; anything else stays."""

    def replacement(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "$"
        return values.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replacement, text)


def command_of(container: Object, values: Mapping[str, str]) -> list[str]:
    """The command line; an image's own entrypoint is not known here, so a command is needed."""
    command = [*container.get("command", []), *container.get("args", [])]
    if not container.get("command"):
        raise ConfigMissing("the container has no command, and there is no image here to take one from")
    return [expand(part, values) for part in command]


async def environment_of(pod: Object, container: Object, find: Find) -> dict[str, str]:
    """The whole environment: a bare base with this interpreter first on the path, then `envFrom`, then `env`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    values = {"PATH": path, "HOME": "/root", "HOSTNAME": pod["metadata"]["name"], "LANG": "C.UTF-8"}
    for source in container.get("envFrom", []):
        values.update(await _from_source(pod, source, find))
    for entry in container.get("env", []):
        value = await _entry_value(pod, container, entry, values, find)
        if value is not None:
            values[entry["name"]] = value
    return values


async def _from_source(pod: Object, source: Object, find: Find) -> dict[str, str]:
    for field, resource in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
        if field in source:
            data = await _data(pod, resource, source[field], find)
            return {source.get("prefix", "") + key: value for key, value in data.items()}
    return {}


async def _entry_value(
    pod: Object, container: Object, entry: Object, values: Mapping[str, str], find: Find
) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return expand(entry.get("value", ""), values)
    if "fieldRef" in origin:
        return _field(pod, origin["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in origin:
        return _resource(container, origin["resourceFieldRef"]["resource"])
    for field, resource in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if field in origin:
            reference = origin[field]
            data = await _data(pod, resource, reference, find)
            if reference["key"] in data:
                return data[reference["key"]]
            if reference.get("optional"):
                return None
            kind = resource.removesuffix("s")
            raise ConfigMissing(f"couldn't find key {reference['key']} in {kind} {reference['name']}")
    raise ConfigMissing(f"environment variable {entry['name']} has a source that is not known here")


async def _data(pod: Object, resource: str, reference: Object, find: Find) -> dict[str, str]:
    found = await find(resource, pod["metadata"]["namespace"], reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigMissing(f'{resource.removesuffix("s")} "{reference["name"]}" not found')
    data = found.get("data") or {}
    if resource == "configmaps":
        return data
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def _field(pod: Object, path: str) -> str:
    match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if match:
        return pod["metadata"].get(match.group(1), {}).get(match.group(2), "")
    addresses = {"status.podIP": "127.0.0.1", "status.hostIP": "127.0.0.1"}
    if path in addresses:
        return addresses[path]
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)


def _resource(container: Object, name: str) -> str:
    kind, _, resource = name.partition(".")
    return str(container.get("resources", {}).get(kind, {}).get(resource, "0"))
