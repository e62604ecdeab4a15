"""What a silent process holds, when it counts as gone, and the scripts by which its messages go back.

Owns the judgement on one process, and what is asked of and done to Dramatiq's keys for it; each script is one
step on the server. Never connects.
"""

from dataclasses import dataclass

#: Seconds without a heartbeat after which a process is gone; Dramatiq's own number.
SILENT_SECONDS = 60.0
#: The same for one of which nothing else is known and that may be full: Dramatiq's longest task and a minute.
FULL_SILENT_SECONDS = 660.0
#: A process that holds fewer delayed messages than this has room, and so it would ask for more, which is a
#: heartbeat. Fleets allow 100 per thread, Dramatiq alone 1000.
LEAST_WINDOW = 100

#: Who of some processes holds anything. Answers [broker id, messages, delayed messages, …].
#: KEYS: none that could be named before. ARGV: prefix and suffix of the sets, broker ids.
HOLDERS = """
local found = {}
for i = 3, #ARGV do
  local acks = ARGV[1] .. ARGV[i] .. ARGV[2]
  local held, delayed = redis.call('SCARD', acks), redis.call('SCARD', acks .. '.DQ')
  if held + delayed > 0 then
    found[#found + 1] = ARGV[i]
    found[#found + 1] = held
    found[#found + 1] = delayed
  end
end
return found
"""

_PRESENCE = """
local function presence_of(key, broker_id, stale)
  if redis.call('HLEN', key) > 5000 then error('more records of presence than any fleet has') end
  local records = redis.call('HGETALL', key)
  local time = redis.call('TIME')
  local now, state, field = time[1] + time[2] / 1e6, 'none', false
  for i = 1, #records, 2 do
    if string.find(records[i + 1], broker_id, 1, true) then
      local ok, record = pcall(cjson.decode, records[i + 1])
      if ok and type(record) == 'table' and record.broker_id == broker_id then
        local beat = tonumber(record.beat)
        if beat and math.abs(now - beat) <= stale then return 'beats', records[i] end
        state, field = 'stale', records[i]
      end
    end
  end
  return state, field
end
"""

#: What a process says on one queue: `beats`, `stale` or `none`.
#: KEYS: hash of presence. ARGV: broker id, seconds after which a beat is stale.
PRESENCE_OF = f"""{_PRESENCE}
return (presence_of(KEYS[1], ARGV[1], tonumber(ARGV[2])))
"""

#: Puts messages of one process back, unless it has given a sign of life. Answers how many, or -1.
#: KEYS: heartbeats, list of waiting ids, hash of bodies, set of what the process holds, hash of presence, set
#: of processes asked to leave. ARGV: broker id, its heartbeat as it was seen, seconds after which a beat is
#: stale, most messages. What has no body any more is done, and only forgotten.
RECLAIM = f"""{_PRESENCE}
local beat = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not beat or tonumber(beat) ~= tonumber(ARGV[2]) then return -1 end
local state, field = presence_of(KEYS[5], ARGV[1], tonumber(ARGV[3]))
if state == 'beats' then return -1 end
local moved = 0
for _, id in ipairs(redis.call('SPOP', KEYS[4], ARGV[4])) do
  if redis.call('HEXISTS', KEYS[3], id) == 1 then
    redis.call('RPUSH', KEYS[2], id)
    moved = moved + 1
  end
end
if field and redis.call('EXISTS', KEYS[4]) == 0 then
  redis.pcall('HDEL', KEYS[5], field)
  redis.pcall('SREM', KEYS[6], field)
end
return moved
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """A silent process that holds messages of one queue."""

    broker_id: str
    held: int
    delayed: int
    silent_seconds: float
    #: `beats`, `stale` or `none`: what it says of itself.
    presence: str

    @property
    def is_gone(self) -> bool:
        """It cannot be alive."""
        if self.presence == "beats" or self.silent_seconds < SILENT_SECONDS:
            return False
        may_be_full = self.presence == "none" and self.delayed >= LEAST_WINDOW
        return not may_be_full or self.silent_seconds >= FULL_SILENT_SECONDS

    @property
    def is_missed(self) -> bool:
        """It said what it does, and has stopped to; or it is gone in any case."""
        return self.presence == "stale" or self.is_gone


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What went back to one queue."""

    messages: int
    delayed: int
    #: Processes that had them, and for how long the first of these had been silent.
    processes: int
    silent_seconds: float

    @property
    def sentence(self) -> str:
        """What happened, for an event."""
        whose = "a process" if self.processes == 1 else f"{self.processes} processes"
        what = f"{self.messages} waiting again, {self.delayed} delayed again"
        return f"Took back what {whose} held, silent for {self.silent_seconds:.0f} s: {what}"
