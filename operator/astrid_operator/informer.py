"""Keeps `Seen` true although a watch may miss something.

Owns the first complete list, before which nothing is decided, the slow comparison after it, and what is to be
watched. The watches themselves are kopf's; this module only asks for lists.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.errors import NotAllowed, ObjectGone, OperatorError
from astrid_operator.kinds import OPTIONAL, Kind
from astrid_operator.kubernetes_api import KubernetesApi
from astrid_operator.kubernetes_requests import RESOURCES
from astrid_operator.seen import Manifest, Seen

log = structlog.get_logger(__name__)

#: Pause between two attempts to list for the first time, in seconds.
RETRY_SECONDS = 2.0
#: So many comparisons in a row that each find what a watch never told: then it is not to be trusted any more.
MISSES_OF_A_DEAD_WATCH = 2


class Informer:
    """Lists, compares and says whether the watches can be trusted."""

    def __init__(
        self, api: KubernetesApi, seen: Seen, namespaces: Sequence[str], changed: Callable[[QueueKey], None]
    ) -> None:
        self._api = api
        self._seen = seen
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._changed = changed
        self._misses = 0
        #: Optional kinds that may not be listed.
        self._refused: set[Kind] = set()
        #: What is to be watched once it has begun: a watch that is refused would end all of them. What was
        #: refused then is known from the slow lists only, once it may be listed, until there is a new start.
        self.watched: tuple[Kind, ...] = ()
        #: What the operator waits for before it can begin; empty: it has begun.
        self.waiting_for = "the first list of objects"

    @property
    def is_trusted(self) -> bool:
        """The watches told all that the lists told, in time, the last few times."""
        return self._misses < MISSES_OF_A_DEAD_WATCH

    async def begin(self) -> None:
        """Return when everything was listed once."""
        while True:
            try:
                await self.compare()
            except ObjectGone:
                self._wait_for("the definition of AstridQueue: kubectl apply -f crds/")
            except OperatorError as error:
                self._wait_for(f"the API server: {error}")
            else:
                self.waiting_for = ""
                self.watched = tuple(kind for kind in Kind if self._is_seen(kind))
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self, every_seconds: float) -> None:
        """Compare for ever; what a list told had `every_seconds` to be told by a watch too."""
        self._seen.missed()
        while True:
            await asyncio.sleep(every_seconds)
            self._judge(self._seen.missed())
            try:
                await self.compare()
            except OperatorError as error:
                log.warning("Lists not compared", error=str(error))

    async def compare(self) -> None:
        """List everything, adopt what the watches have not told, and name whom that concerns."""
        found: set[QueueKey] = set()
        for kind in Kind:
            before = self._seen.all(kind)
            listed = await self._listed(kind)
            if listed is not None:
                found |= self._seen.resync(kind, listed, before, is_watched=kind in self.watched)
        for key in found:
            self._changed(key)

    async def _listed(self, kind: Kind) -> Sequence[Manifest] | None:
        """Every object of `kind`; None where it may be done without, and may not be listed."""
        scopes = scopes_of(kind, self._namespaces)
        try:
            listed = [each for name in scopes for each in await self._api.list_objects(kind, name)]
        except NotAllowed as error:
            if kind not in OPTIONAL:
                raise
            if kind not in self._refused:
                log.warning("Supply not seen", kind=kind, missing_rule=_rule_for(kind), error=str(error))
            self._refused.add(kind)
            return None
        self._refused.discard(kind)
        return listed

    def _is_seen(self, kind: Kind) -> bool:
        return bool(scopes_of(kind, self._namespaces)) and kind not in self._refused

    def _judge(self, missed: int) -> None:
        self._misses = self._misses + 1 if missed else 0
        if missed:
            log.warning("Watch missed changes", changes=missed, times_in_a_row=self._misses)

    def _wait_for(self, what: str) -> None:
        if what != self.waiting_for:
            log.warning("Waiting", waiting_for=what)
        self.waiting_for = what


def _rule_for(kind: Kind) -> str:
    """What a role must hold for `kind` to be seen, as a manifest says it."""
    resource = RESOURCES[kind]
    return f'apiGroups: ["{resource.group}"], resources: [{resource.plural}], verbs: [list, watch]'


def scopes_of(kind: Kind, namespaces: Sequence[str | None]) -> Sequence[str | None]:
    """Where `kind` is looked for: nodes belong to no namespace, and who serves some only may not see them."""
    return namespaces if kind is not Kind.NODE or None in namespaces else ()
