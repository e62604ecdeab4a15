"""Names of Dramatiq's keys in Redis, and the one script that counts a queue.

Owns what the operator knows of Dramatiq's layout (2.x). Never connects.
"""

from dataclasses import dataclass

#: A head message larger than this is not decoded inside Redis; its age stays unknown.
MAX_HEAD_BYTES = 65536

#: Counts one queue in one step, so that the numbers belong together. Answers
#: [ready, outstanding, delayed, dead, ms since the epoch since when the head waits or -1].
#: KEYS: list of waiting ids, hash of bodies, hash of delayed bodies, sorted set of dead letters.
COUNT_QUEUE = """
local ready = redis.call('LLEN', KEYS[1])
local since = -1
if ready > 0 then
  local id = redis.call('LINDEX', KEYS[1], 0)
  local size = redis.call('HSTRLEN', KEYS[2], id)
  if size > 0 and size <= tonumber(ARGV[1]) then
    local ok, message = pcall(cjson.decode, redis.call('HGET', KEYS[2], id))
    if ok and type(message) == 'table' then
      local options = type(message.options) == 'table' and message.options or {}
      since = math.max(tonumber(message.message_timestamp) or -1, tonumber(options.requeue_timestamp) or -1)
    end
  end
end
return {
  ready, redis.call('HLEN', KEYS[2]), redis.call('HLEN', KEYS[3]), redis.call('ZCARD', KEYS[4]),
  string.format('%.0f', since)
}
"""


@dataclass(frozen=True, slots=True)
class DramatiqQueue:
    """One Dramatiq queue within one Redis: the prefix of all keys, and the queue's name."""

    namespace: str
    name: str

    @property
    def keys(self) -> tuple[str, str, str, str]:
        """KEYS of `COUNT_QUEUE`."""
        ready = f"{self.namespace}:{self.name}"
        return ready, f"{ready}.msgs", f"{ready}.DQ.msgs", f"{ready}.XQ"
