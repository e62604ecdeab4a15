"""What the operator knows of the API server's objects, without asking.

Owns the newest version of every AstridQueue, of the Deployments, pods and disruption budgets that carry our
label, and of quotas and nodes, as watches, our own writes and the slow resync told of them. Never asks and
never writes; a delete that was missed is found by `resync`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.kinds import LABELLED, QUEUE_LABEL, Kind
from astrid_operator.trimming import trimmed

#: Objects whose deletion is remembered, so that a late echo of our own write does not revive them.
REMEMBERED_DELETIONS = 4096

Manifest = Mapping[str, Any]


class Seen:
    """The newest known version of each object, by kind, AstridQueue and name."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[QueueKey, dict[str, Manifest]]] = {kind: {} for kind in Kind}
        #: Version at which an object went, by uid, the oldest first.
        self._deleted: dict[str, int] = {}
        #: Versions that only a list has told so far, by uid: a watch that works tells them too, soon.
        self._unconfirmed: dict[str, int] = {}

    def queues(self) -> dict[QueueKey, Manifest]:
        """Every AstridQueue."""
        queues = self._objects[Kind.ASTRID_QUEUE]
        return {key: manifest for key, named in queues.items() for manifest in named.values()}

    def get(self, kind: Kind, key: QueueKey) -> Manifest | None:
        """The object of `kind` that bears the AstridQueue's own name."""
        return self._objects[kind].get(key, {}).get(key.name)

    def pods(self, key: QueueKey) -> tuple[Manifest, ...]:
        """The pods of one AstridQueue."""
        return tuple(self._objects[Kind.POD].get(key, {}).values())

    def pod(self, key: QueueKey, name: str) -> Manifest | None:
        """One pod of an AstridQueue."""
        return self._objects[Kind.POD].get(key, {}).get(name)

    def take(self, kind: Kind, event: Mapping[str, Any]) -> tuple[QueueKey | None, bool]:
        """Take one watch event; the AstridQueue that it is news for, and whether a person edited that."""
        manifest = event["object"]
        if _version(manifest) >= self._unconfirmed.get(_meta(manifest, "uid"), 0):
            self._unconfirmed.pop(_meta(manifest, "uid"), None)
        if event["type"] == "DELETED":
            return self.drop(kind, manifest), kind is Kind.ASTRID_QUEUE
        if kind is not Kind.ASTRID_QUEUE:
            return self.put(kind, manifest), False
        before = self.get(kind, QueueKey(_meta(manifest, "namespace"), _meta(manifest, "name")))
        key = self.put(kind, manifest)
        is_edit = before is None or _edition(before) != _edition(manifest)
        return (key, True) if is_edit else (None, False)

    def put(self, kind: Kind, manifest: Manifest) -> QueueKey | None:
        """Keep `manifest` if it is news; whose AstridQueue it belongs to, or None where it is none or old."""
        key, name = owner_of(kind, manifest), _meta(manifest, "name")
        if key is None or _version(manifest) <= self._deleted.get(_meta(manifest, "uid"), -1):
            return None
        known = self._objects[kind].get(key, {}).get(name)
        if known is not None and not _is_newer(manifest, known):
            return None
        self._objects[kind].setdefault(key, {})[name] = trimmed(kind, manifest)
        return key

    def drop(self, kind: Kind, manifest: Manifest) -> QueueKey | None:
        """Forget `manifest`, which was deleted; whose AstridQueue it belonged to. Its successor is kept."""
        key, name, uid = owner_of(kind, manifest), _meta(manifest, "name"), _meta(manifest, "uid")
        self._remember_deletion(uid, _version(manifest))
        if key is None:
            return None
        named = self._objects[kind].get(key, {})
        known = named.get(name)
        if known is not None and _meta(known, "uid") == uid:
            del named[name]
            if not named:
                del self._objects[kind][key]
        return key

    def rescaled(self, key: QueueKey, replicas: int, version: str) -> None:
        """The Deployment of `key` was given `replicas`; its watch will tell the rest."""
        known = self.get(Kind.DEPLOYMENT, key)
        if known is None or not version.isdecimal() or int(version) <= _version(known):
            return
        metadata = {**known["metadata"], "resourceVersion": version}
        self._objects[Kind.DEPLOYMENT][key][key.name] = {
            **known,
            "metadata": metadata,
            "spec": {**known["spec"], "replicas": replicas},
        }

    def forget(self, kind: Kind, key: QueueKey) -> None:
        """The API server says that the object of the AstridQueue's own name is not there."""
        known = self.get(kind, key)
        if known is not None:
            self.drop(kind, known)

    def resync(
        self, kind: Kind, listed: Iterable[Manifest], before: Iterable[Manifest], *, is_watched: bool = True
    ) -> set[QueueKey]:
        """Adopt a complete list of `kind`; the AstridQueues of which something had been missed.

        `before` is `all(kind)` as it was when the list was asked for: what came to be known after that is
        newer than the list, and is kept. `is_watched`: a watch should tell the same.
        """
        current = {_meta(each, "uid"): each for each in listed}
        news = [(each, key) for each in current.values() if (key := self.put(kind, each))]
        gone = [each for each in before if _meta(each, "uid") not in current and self._is_known(kind, each)]
        news += [(each, key) for each in gone if (key := self.drop(kind, each))]
        if is_watched:
            self._unconfirmed |= {_meta(each, "uid"): _version(each) for each, _ in news}
        return {key for _, key in news}

    def missed(self) -> int:
        """Changes that lists told and no watch has told since; they are told once."""
        count = len(self._unconfirmed)
        self._unconfirmed.clear()
        return count

    def owned(self, kind: Kind) -> Iterator[tuple[QueueKey, Manifest]]:
        """Every object of `kind` with whose it is (`owner_of`)."""
        for key, named in self._objects[kind].items():
            for manifest in named.values():
                yield key, manifest

    def all(self, kind: Kind) -> tuple[Manifest, ...]:
        """Every object of `kind`."""
        return tuple(self._each(kind))

    def _remember_deletion(self, uid: str, version: int) -> None:
        """An echo of an older write shall not revive it; what comes back by its label is newer."""
        self._deleted[uid] = version
        while len(self._deleted) > REMEMBERED_DELETIONS:
            del self._deleted[next(iter(self._deleted))]

    def _each(self, kind: Kind) -> Iterator[Manifest]:
        for named in self._objects[kind].values():
            yield from named.values()

    def _is_known(self, kind: Kind, manifest: Manifest) -> bool:
        key = owner_of(kind, manifest)
        known = self._objects[kind].get(key, {}).get(_meta(manifest, "name")) if key else None
        return known is not None and _meta(known, "uid") == _meta(manifest, "uid")


def owner_of(kind: Kind, manifest: Manifest) -> QueueKey | None:
    """The AstridQueue that `manifest` is or belongs to; None where it carries no label of ours.

    What belongs to no AstridQueue is kept under its own namespace (if it has one) and name.
    """
    namespace, name = _meta(manifest, "namespace"), _meta(manifest, "name")
    if kind not in LABELLED:
        return QueueKey(namespace, name)
    labelled = ((manifest.get("metadata") or {}).get("labels") or {}).get(QUEUE_LABEL)
    return QueueKey(namespace, str(labelled)) if labelled else None


def _meta(manifest: Manifest, field: str) -> str:
    return str((manifest.get("metadata") or {}).get(field) or "")


def _edition(manifest: Manifest) -> tuple[str, ...]:
    """What changes when a person does something to an object, and not when its status is written."""
    return tuple(_meta(manifest, field) for field in ("uid", "generation", "deletionTimestamp"))


def _is_newer(manifest: Manifest, known: Manifest) -> bool:
    """Versions of one object grow; another uid is a successor."""
    if _meta(manifest, "uid") != _meta(known, "uid"):
        return _meta(manifest, "creationTimestamp") >= _meta(known, "creationTimestamp")
    return _version(manifest) > _version(known)


def _version(manifest: Manifest) -> int:
    """Versions of one kind compare as numbers (Kubernetes promises it since 1.35, and kept to it before)."""
    version = _meta(manifest, "resourceVersion")
    return int(version) if version.isdecimal() else 0
