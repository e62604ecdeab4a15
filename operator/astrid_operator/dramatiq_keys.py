"""Names of Dramatiq's keys in Redis, and the scripts that count a queue and read the times of its messages.

Owns what the operator knows of Dramatiq's layout (2.x). Never connects; no script here writes.
"""

from typing import NamedTuple

from astrid_operator import throughput, waits

#: A head message larger than this is not decoded inside Redis; its age stays unknown.
MAX_HEAD_BYTES = 65536

#: More records of presence than this are not read: no fleet is as large.
MAX_MEMBERS = 5000

#: What is read of the workers' counters, in this order.
COUNTED = (*throughput.COUNTERS, *waits.FIELDS)

#: Counts one queue in one step, so that the numbers belong together. Answers [line, presence or nil, first
#: and last id of the list of delayed messages or nil]. The line holds numbers in text, which is quick to
#: read: ready, outstanding, delayed, dead, ms since the epoch since when the head waits or -1, delayed
#: messages in no worker's hands; then the counters, "-" for none. KEYS: list of waiting ids, hash of bodies,
#: hash of delayed bodies, sorted set of dead letters, list of delayed ids. ARGV: largest head that is
#: decoded, hash of counters, hash of presence, most records of it. What workers say is no key of Dramatiq: a
#: user who may not read it, or a key of a wrong type, costs that part alone.
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
      since = math.max(
        tonumber(message.message_timestamp) or -1, tonumber(options.requeue_timestamp) or -1,
        tonumber(options.due_timestamp) or -1
      )
      if not (since > -1 and since < 9e15) then since = -1 end
    end
  end
end
local function asked(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return false end
  return answer
end
local line = {
  ready, redis.call('HLEN', KEYS[2]), redis.call('HLEN', KEYS[3]), redis.call('ZCARD', KEYS[4]),
  string.format('%.0f', since), redis.call('LLEN', KEYS[5])
}
local counters = asked('HMGET', ARGV[2], COUNTED)
for i = 1, HOW_MANY do
  local value = counters and counters[i]
  line[6 + i] = value and #value < 64 and string.find(value, '^%S+$') and value or '-'
end
local members = asked('HLEN', ARGV[3])
return {
  table.concat(line, ' '), members and members <= tonumber(ARGV[4]) and asked('HGETALL', ARGV[3]),
  redis.call('LINDEX', KEYS[5], 0), redis.call('LINDEX', KEYS[5], -1)
}
""".replace("COUNTED", ", ".join(f"'{name}'" for name in COUNTED)).replace("HOW_MANY", str(len(COUNTED)))

#: How the ETA of a body is found. What is no number is due at once, as it is to Dramatiq; nil: no message.
_ETA_OF = """
local function eta_of(body)
  if not body then return nil end
  local eta
  if #body > tonumber(ARGV[1]) then
    eta = string.match(string.sub(body, -8192), '.*"eta"%s*:%s*(%-?[%d%.eE+]+)')
    if not eta then return nil end
  else
    local ok, message = pcall(cjson.decode, body)
    if not ok or type(message) ~= 'table' or type(message.options) ~= 'table' then return nil end
    eta = type(message.options.eta) == 'number' and message.options.eta or 0
  end
  eta = tonumber(eta) or 0
  if eta ~= eta then return 0 end
  return math.max(0, math.min(9e15, eta))
end
local etas, unknown = {}, 0
local function note(body)
  local eta = eta_of(body)
  if eta then etas[#etas + 1] = string.format('%.0f', eta) else unknown = unknown + 1 end
end
"""

#: The next slice of all delayed messages. Answers [cursor, not understood, ETAs in ms].
#: KEYS: hash of delayed bodies. ARGV: largest body that is decoded, cursor, size of the slice.
WALK_DELAYED = f"""{_ETA_OF}
local found = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
for i = 2, #found[2], 2 do note(found[2][i]) end
return {{found[1], unknown, etas}}
"""

#: The delayed messages at the end of their list. Answers [0, not understood, ETAs in ms].
#: KEYS: hash of delayed bodies, list of their ids. ARGV: largest body that is decoded, first index, most ids.
READ_DELAYED_END = f"""{_ETA_OF}
local first = tonumber(ARGV[2])
for _, id in ipairs(redis.call('LRANGE', KEYS[2], first, first + tonumber(ARGV[3]) - 1)) do
  note(redis.call('HGET', KEYS[1], id))
end
return {{0, unknown, etas}}
"""

#: Delayed messages of the list that come after a certain one, in the order of the list. Answers [last id
#: read, its index, length of the list, how many were left out, ETAs in ms in one text, their ids]; told are
#: those due until some time alone. KEYS: hash of delayed bodies, list of their ids. ARGV: largest body that
#: is decoded, id that they come after (empty: from the start), its index and the length of the list when it
#: was read, most ids, latest ETA, 1 where of too many the last are read and not the first. Where that id is
#: gone, all before it are gone too: workers take from the start.
READ_LISTED = f"""{_ETA_OF}
local length, at, first = redis.call('LLEN', KEYS[2]), tonumber(ARGV[3]), 0
if ARGV[2] ~= '' then
  if redis.call('LINDEX', KEYS[2], at) == ARGV[2] then
    first = at + 1
  elseif redis.call('LINDEX', KEYS[2], at - tonumber(ARGV[4])) == ARGV[2] then
    first = length + at - tonumber(ARGV[4]) + 1
  else
    local found = redis.call('LPOS', KEYS[2], ARGV[2], 'RANK', -1)
    first = found and found + 1 or 0
  end
end
local most, left_out = tonumber(ARGV[5]), 0
if ARGV[7] == '1' and length - first > most then
  left_out = length - first - most
  first = length - most
end
local read = redis.call('LRANGE', KEYS[2], first, first + most - 1)
local told, latest = {{}}, tonumber(ARGV[6])
for _, id in ipairs(read) do
  local eta = eta_of(redis.call('HGET', KEYS[1], id))
  if eta and eta <= latest then
    etas[#etas + 1] = string.format('%.0f', eta)
    told[#told + 1] = id
  end
end
local last = read[#read] or ARGV[2]
return {{last, first + #read - 1, length, left_out, table.concat(etas, ' '), told}}
"""


def heartbeats_key(namespace: str) -> str:
    """Sorted set: broker id of every process that ever asked for anything → its newest heartbeat in ms."""
    return f"{namespace}:__heartbeats__"


class DramatiqQueue(NamedTuple):
    """One Dramatiq queue within one Redis: the prefix of all keys, and the queue's name."""

    namespace: str
    name: str

    @property
    def keys(self) -> tuple[str, str, str, str, str]:
        """KEYS of `COUNT_QUEUE`."""
        ready = f"{self.namespace}:{self.name}"
        return ready, f"{ready}.msgs", f"{ready}.DQ.msgs", f"{ready}.XQ", f"{ready}.DQ"

    @property
    def bodies(self) -> str:
        """Hash of all messages that are outstanding; it is there as long as there is one."""
        return self.keys[1]

    @property
    def delayed(self) -> "DramatiqQueue":
        """The queue in which its delayed messages stand."""
        return DramatiqQueue(self.namespace, f"{self.name}.DQ")

    @property
    def counters(self) -> str:
        """Hash in which workers add up what they did."""
        return f"astrid:{self.namespace}:counters:{self.name}"

    @property
    def presence(self) -> str:
        """Hash in which each worker process says what it does."""
        return f"astrid:{self.namespace}:presence:{self.name}"

    @property
    def drain(self) -> str:
        """Set of the processes that are asked to leave: the one thing that is said to workers."""
        return f"astrid:{self.namespace}:drain:{self.name}"

    def acks_of(self, broker_id: str) -> tuple[str, str]:
        """Sets of the messages that one process holds: fetched to be worked on, and delayed."""
        acks = f"{self.namespace}:__acks__.{broker_id}.{self.name}"
        return acks, f"{acks}.DQ"
