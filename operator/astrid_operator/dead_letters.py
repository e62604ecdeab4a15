"""The dead letters of one queue in Redis: found, sent again, deleted.

Owns what a dead letter is made of, and the two steps by which it leaves, each of which the server takes as a
whole. Never takes one that changed since it was looked at, and never loses one on the way: it is in the queue
or among the dead, whatever fails in between. What it holds may be anything.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import redis

from astrid_operator.dramatiq_keys import DramatiqQueue

#: Dead letters that are read or moved in one call.
AT_ONCE = 200

#: What a message that is sent again must not remember: its former life, and when it was due.
FORGOTTEN = ("retries", "traceback", "eta", "dead_sentence", "dead_at", "requeue_timestamp")

#: Sends one dead letter again if it is still what it was. Answers 1, or 0 where it is not.
#: KEYS: sorted set of dead letters, hash of their bodies, list of waiting ids, hash of bodies, starts.
#: ARGV: id, its body as it was seen, its new body, id by which starts are counted.
SEND_AGAIN = """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.pcall('HDEL', KEYS[5], ARGV[4])
redis.call('HSET', KEYS[4], ARGV[1], ARGV[3])
redis.call('RPUSH', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that nobody will retry by itself. What is not known is empty or None."""

    #: Its name among Redis's keys, which may differ from the message's own.
    id: str
    queue: str
    actor: str
    #: As a call would be written: `1, "a", key=2`.
    arguments: str
    sentence: str
    #: When it was given up, RFC 3339.
    died_at: str
    age_seconds: float | None
    retries: int | None
    traceback: str
    #: As it stands in Redis; None: there is no body, only an id.
    body: bytes | None = field(repr=False)
    #: The same, understood; None: it is not Dramatiq's JSON.
    message: dict[str, Any] | None = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """What a program may want to know."""
        message = self.message or {}
        return {
            "id": self.id,
            "message_id": message.get("message_id"),
            "queue": self.queue,
            "actor": self.actor or None,
            "args": message.get("args"),
            "kwargs": message.get("kwargs"),
            "dead_sentence": self.sentence or None,
            "dead_at": self.died_at or None,
            "age_seconds": self.age_seconds,
            "retries": self.retries,
            "traceback": self.traceback or None,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a wish about some dead letters."""

    asked: int
    done: int
    #: A sentence for each for which it was not done.
    trouble: tuple[str, ...] = ()


class DeadLetters:
    """Those of one queue."""

    def __init__(self, client: redis.Redis, queue: DramatiqQueue) -> None:
        self.queue = queue
        self._client = client
        self._waiting, self._bodies, _, self._dead, _ = queue.keys
        self._dead_bodies = f"{self._dead}.msgs"
        self._send_again = client.register_script(SEND_AGAIN)
        #: Read once, for all the beginnings of ids that are looked for.
        self._known: list[DeadLetter] | None = None

    def count(self) -> int:
        """How many there are."""
        return self._client.zcard(self._dead)

    def newest(self, limit: int) -> list[DeadLetter]:
        """At most `limit`, the newest first."""
        pairs = self._client.zrevrange(self._dead, 0, limit - 1, withscores=True)
        return list(self._read(cast("list[tuple[bytes, float]]", pairs)))

    def all(self) -> list[DeadLetter]:
        """Every one that is there now, the oldest first."""
        pairs = self._client.zrange(self._dead, 0, -1, withscores=True)
        return list(self._read(cast("list[tuple[bytes, float]]", pairs)))

    def find(self, given: str) -> list[DeadLetter]:
        """Those whose id or message id is `given` or begins so; one that is it exactly comes alone."""
        score = self._client.zscore(self._dead, given)
        if score is not None:
            return list(self._read([(given.encode(), score)]))
        if self._known is None:
            self._known = self.all()
        return [each for each in self._known if each.id.startswith(given) or _is_called(each, given)]

    def requeue(self, letters: Iterable[DeadLetter]) -> Outcome:
        """Send `letters` again as if they had never been tried, at the end of the queue."""
        asked = done = 0
        trouble: list[str] = []
        now_ms = int(self._now() * 1000)
        for letter in letters:
            asked += 1
            if letter.message is None or letter.body is None:
                what = "has no body any more" if letter.body is None else "is no JSON of Dramatiq's"
                trouble.append(f"{letter.id} {what}, and cannot be sent again")
            elif self._requeue_one(letter, letter.body, letter.message, now_ms):
                done += 1
            else:
                trouble.append(f"{letter.id} is no dead letter any more, or another one")
        return Outcome(asked, done, tuple(trouble))

    def purge(self, letters: Sequence[DeadLetter]) -> Outcome:
        """Delete `letters`."""
        done = 0
        for start in range(0, len(letters), AT_ONCE):
            ids = [each.id for each in letters[start : start + AT_ONCE]]
            with self._client.pipeline(transaction=True) as pipe:
                pipe.zrem(self._dead, *ids)
                pipe.hdel(self._dead_bodies, *ids)
                done += int(pipe.execute()[0])
        gone = len(letters) - done
        return Outcome(len(letters), done, (f"{gone} were gone already",) if gone else ())

    def _requeue_one(self, letter: DeadLetter, was: bytes, message: dict[str, Any], now_ms: int) -> bool:
        body = json.dumps(sent_again(message, self.queue, now_ms), separators=(",", ":")).encode()
        starts = f"astrid:{self.queue.namespace}:starts:{self.queue.name}"
        keys = [self._dead, self._dead_bodies, self._waiting, self._bodies, starts]
        counted_as = str(message.get("message_id") or letter.id)
        return bool(self._send_again(keys=keys, args=[letter.id, was, body, counted_as]))

    def _read(self, pairs: Sequence[tuple[bytes, float]]) -> Iterator[DeadLetter]:
        now = self._now()
        for start in range(0, len(pairs), AT_ONCE):
            part = pairs[start : start + AT_ONCE]
            bodies = cast(
                "list[bytes | None]", self._client.hmget(self._dead_bodies, [each for each, _ in part])
            )
            for (name, score), body in zip(part, bodies, strict=True):
                yield letter_of(name.decode(errors="replace"), body, score, now, self.queue)

    def _now(self) -> float:
        """The server's time in seconds."""
        seconds, microseconds = self._client.time()
        return seconds + microseconds / 1e6


def _is_called(letter: DeadLetter, given: str) -> bool:
    return str((letter.message or {}).get("message_id") or "").startswith(given)


def letter_of(name: str, body: bytes | None, died_ms: float, now: float, queue: DramatiqQueue) -> DeadLetter:
    """What can be made of one dead letter; `died_ms` is when Dramatiq gave it up, by the clock it had."""
    message = _message(body)
    found = message or {}
    options = found["options"] if isinstance(found.get("options"), dict) else {}
    retries = options.get("retries", 0 if message is not None else None)
    sentence = options.get("dead_sentence")
    traceback = options.get("traceback")
    return DeadLetter(
        id=name,
        queue=queue.name,
        actor=str(found.get("actor_name") or ""),
        arguments=_arguments(found),
        sentence=str(sentence) if sentence else _last_line(traceback),
        died_at=_moment(died_ms),
        age_seconds=max(0.0, round(now - died_ms / 1000, 3)),
        retries=retries if isinstance(retries, int) else None,
        traceback=str(traceback) if traceback else "",
        body=body,
        message=message,
    )


def sent_again(message: dict[str, Any], queue: DramatiqQueue, now_ms: int) -> dict[str, Any]:
    """`message` as it is sent again: all its retries before it, due at once, in the queue itself."""
    options = message["options"] if isinstance(message.get("options"), dict) else {}
    kept = {name: value for name, value in options.items() if name not in FORGOTTEN}
    return {**message, "queue_name": queue.name, "options": {**kept, "requeue_timestamp": now_ms}}


def _message(body: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "actor_name" in found else None


def _arguments(message: dict[str, Any]) -> str:
    args, kwargs = message.get("args"), message.get("kwargs")
    given = [_value(each) for each in args] if isinstance(args, list) else []
    named = [f"{name}={_value(each)}" for name, each in kwargs.items()] if isinstance(kwargs, dict) else []
    return ", ".join([*given, *named])


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _last_line(traceback: Any) -> str:
    """What an application that knows no sentences tells of its failure."""
    lines = str(traceback or "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _moment(milliseconds: float) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""
