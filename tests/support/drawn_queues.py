"""AstridQueue manifests drawn at random: sound ones, and the same with something broken in them.

Drawn from the operator's own table of fields, so that a new field is tried without a change here.
"""

import copy
from typing import Any

from hypothesis import strategies as st

from astrid_operator import schema as kinds
from astrid_operator.rules import RESERVED_VARIABLES
from astrid_operator.spec_schema import OBJECT_NAME, OUR_APP, SPEC, VARIABLE, WORKER_TYPES

Json = Any

RESOURCE_NAMES = ["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "example.org/lens", "lenses"]
KEYS = [
    "app",
    "zone",
    "example.org/zone",
    "kubernetes.io/os",
    "app.kubernetes.io/name",
    "astrid.dev/queue",
    "-bad",
    "two/slashes/here",
    "/empty",
    "upper.Example.org/x",
    "a" * 63,
    "a" * 64,
    f"{'a' * 253}/x",
    f"{'a' * 254}/x",
]
#: Fields whose values hang together: drawn from a few, so that they often fit.
WORDS = {
    "queueName": [*WORKER_TYPES, *WORKER_TYPES, "emails", "emails.DQ", "_x.y-z"],
    "workerType": [*WORKER_TYPES, *WORKER_TYPES, "emails"],
    "app": [OUR_APP, "shop.tasks", "shop:broker"],
}
#: Values that some field or other must refuse. 1.0 is not among them: the server takes it where no rule looks,
#: and refuses it elsewhere; no YAML that kubectl reads becomes one.
GARBAGE: list[Json] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    7,
    1.5,
    10_001,
    86_401,
    2**31,
    2**70,
    "",
    "1",
    "1Gi",
    "0.5m",
    "1e3",
    "-1",
    "Auto",
    "none",
    "x",
    "x y",
    "x\n",
    "é",
    "UPPER",
    "under_score",
    "emails.DQ",
    "emails.XQ",
    "a" * 64,
    "a" * 129,
    "a" * 254,
    "/",
    "/tmp",
    "/tmp/",
    "/data/../etc",
    "relative",
    "/data//x",
    "docker.io/library/redis:7@sha256:00",
    [],
    [1],
    [{}],
    {},
    {"unknown": 1},
    {"name": "x"},
    {"cpu": "1"},
    {"cpu": -1},
    {"cpu": 1.5},
    *({key: "x"} for key in KEYS),
]


def manifests() -> st.SearchStrategy[Json]:
    """A manifest that is sound at least half of the time."""
    return _manifest()


@st.composite
def _manifest(draw: st.DrawFn) -> Json:
    spec = draw(_sound(SPEC, "spec"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        _break_one(draw, spec)
    name = draw(
        st.sampled_from([*["differencing", "detection"] * 4, "my-queue", "0queue", "a" * 52, "a" * 53])
    )
    return {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def _break_one(draw: st.DrawFn, spec: Json) -> None:
    """Put garbage where something is, or a field where none belongs."""
    places = list(_places(spec))
    holder, key = draw(st.sampled_from(places)) if places else (spec, "replicas")
    if draw(st.booleans()) and isinstance(holder, dict):
        key = draw(st.sampled_from([key, "unknownField"]))
    holder[key] = copy.deepcopy(draw(st.sampled_from(GARBAGE)))


def _places(node: Json) -> list[tuple[Json, Json]]:
    entries = (
        list(node.items())
        if isinstance(node, dict)
        else list(enumerate(node))
        if isinstance(node, list)
        else []
    )
    return [place for key, value in entries for place in [(node, key), *_places(value)]]


def _sound(kind: kinds.Kind, name: str) -> st.SearchStrategy[Json]:
    match kind:
        case kinds.Flag():
            return st.booleans()
        case kinds.Whole(minimum, maximum):
            return st.one_of(
                st.integers(minimum, min(maximum, minimum + 20)), st.sampled_from([minimum, maximum])
            )
        case kinds.Number(minimum, maximum):
            return st.one_of(
                st.floats(minimum, min(maximum, 400)),
                st.integers(1, 400),
                st.sampled_from([minimum, maximum]),
            )
        case kinds.Choice(words):
            return st.sampled_from(words)
        case kinds.WholeOrText():
            return st.one_of(
                st.integers(0, 8),
                st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3})?(m|k|M|G|E|Ki|Mi|Gi|Ei)?", fullmatch=True),
            )
        case kinds.Text():
            return _sound_text(kind, name)
        case kinds.Anything():
            return st.just({})
        case kinds.MapOf(values):
            keys = RESOURCE_NAMES if name in ("requests", "limits") else KEYS[:4]
            return st.dictionaries(st.sampled_from(keys), _sound(values, name), max_size=3)
        case kinds.ListOf(items, max_items):
            return st.lists(_sound(items, name), max_size=min(3, max_items))
        case kinds.Object():
            return _sound_object(kind)
    raise AssertionError(kind)


def _sound_text(kind: kinds.Text, name: str) -> st.SearchStrategy[Json]:
    if name in WORDS:
        return st.sampled_from(WORDS[name])
    if kind.pattern == OBJECT_NAME:
        return st.sampled_from(["astrid-workers", "archive.redis"])
    if kind.pattern == VARIABLE:
        return st.sampled_from(["SHOP_SENDER", "_x", "OMP_NUM_THREADS", *RESERVED_VARIABLES[:2]])
    ascii_only = st.characters(min_codepoint=32, max_codepoint=126)
    return st.from_regex(kind.pattern or "[a-z]*", fullmatch=True, alphabet=ascii_only).filter(
        lambda text: kind.min_length <= len(text) <= kind.max_length
    )


def _sound_object(kind: kinds.Object) -> st.SearchStrategy[Json]:
    required = {name: _sound(kind.fields[name], name) for name in kind.required}
    optional = {name: _sound(each, name) for name, each in kind.fields.items() if name not in kind.required}
    chosen = st.lists(st.sampled_from(sorted(optional)), max_size=5, unique=True) if optional else st.just([])
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries({**required, **{name: optional[name] for name in names}})
    )
