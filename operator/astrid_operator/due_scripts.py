"""The scripts that find due messages in the list of delayed ones and move them to their queue.

Owns what is done to Dramatiq's keys for it; each script is one step on the server. Never connects.
"""

#: Codes in the answer of `FIND`, where there is no index: it is not where was looked, somebody living holds
#: it, it is delayed no more, there was no room for it in this answer.
NOT_SEEN, HELD, GONE, NO_ROOM = -1, -2, -3, -4

#: Finds messages by their ids. Answers [time in ms, length of the list, ids at its end that were not looked
#: at, index or code of each, body or nil of each]. KEYS: list of delayed ids, hash of delayed bodies. ARGV:
#: prefix and suffix of the sets of what processes hold, most bytes of bodies, ids of the list that are looked
#: through (0: each id is looked for in all of it), ids at its end of which they are the first, number of
#: processes, processes, ids. Looking for one id takes the server as long as the list is; looking through a
#: part for many is slower for each id in it, and done once.
FIND = """
local time, length = redis.call('TIME'), redis.call('LLEN', KEYS[1])
local room, part, left = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local holders, ids, index = tonumber(ARGV[6]), {}, {}
for i = 7 + holders, #ARGV do ids[#ids + 1] = ARGV[i] end
for i = 7, 6 + holders do
  for at, is_held in ipairs(redis.call('SMISMEMBER', ARGV[1] .. ARGV[i] .. ARGV[2], unpack(ids))) do
    if is_held == 1 then index[ids[at]] = -2 end
  end
end
if part == 0 then
  left = 0
  for _, id in ipairs(ids) do
    if not index[id] then index[id] = redis.call('LPOS', KEYS[1], id, 'RANK', -1) end
  end
else
  local asked, start = {}, math.max(0, length - left)
  for _, id in ipairs(ids) do asked[id] = true end
  for at, id in ipairs(redis.call('LRANGE', KEYS[1], start, start + part - 1)) do
    if asked[id] then index[id] = start + at - 1 end
  end
  left = math.max(0, length - start - part)
end
local places, bodies, given = {}, {}, false
for at, id in ipairs(ids) do
  local place, body = index[id] or -1, false
  if place >= 0 or (place == -1 and left == 0) then
    local size = redis.call('HSTRLEN', KEYS[2], id)
    room = room - size
    if size == 0 then
      place = -3
    elseif place >= 0 and room < 0 and given then
      place = -4
    elseif place >= 0 then
      body, given = redis.call('HGET', KEYS[2], id), true
    end
  end
  places[at], bodies[at] = place, body
end
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {now, length, left, places, bodies}
"""

#: Moves messages to their queue, as a worker does when they are due: each that still stands in the list and
#: whose body is what it was. Answers, for each, the id that stands in its place now, or nil where it was not
#: moved. The first id of the list takes that place, so that what is added at its end stays in order and
#: nothing is searched. What a user may not do, or a key of a wrong type, is found out before anything is
#: written. KEYS: list of delayed ids, hash of delayed bodies, list of waiting ids, hash of bodies. ARGV:
#: length of the list when it was looked at; then id, index at that time, SHA-1 of the body, new id and new
#: body of each, by index.
MOVE = """
redis.call('LLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('HDEL', KEYS[2], '')
redis.call('HDEL', KEYS[4], '')
redis.call('LPOP', KEYS[1], 0)
local probe = redis.pcall('LSET', KEYS[1], redis.call('LLEN', KEYS[1]), '').err
if not string.find(probe, 'range', 1, true) and not string.find(probe, 'no such key', 1, true) then
  return redis.error_reply(probe)
end
local answers, moved, length = {}, 0, tonumber(ARGV[1])
for i = 2, #ARGV, 5 do
  local id, at, place = ARGV[i], tonumber(ARGV[i + 1]), nil
  if redis.call('LINDEX', KEYS[1], at - moved) == id then
    place = at - moved
  elseif redis.call('LINDEX', KEYS[1], at - length) == id then
    place = at - length
  end
  local body = place and redis.call('HGET', KEYS[2], id)
  answers[#answers + 1] = false
  if body and redis.sha1hex(body) == ARGV[i + 2] then
    redis.call('HSET', KEYS[4], ARGV[i + 3], ARGV[i + 4])
    local pushed = redis.pcall('RPUSH', KEYS[3], ARGV[i + 3])
    if type(pushed) == 'table' and pushed.err then
      redis.call('HDEL', KEYS[4], ARGV[i + 3])
      return pushed
    end
    local head = redis.call('LINDEX', KEYS[1], 0)
    redis.call('LSET', KEYS[1], place, head)
    redis.call('LPOP', KEYS[1])
    redis.call('HDEL', KEYS[2], id)
    answers[#answers], moved = head, moved + 1
  end
end
return answers
"""
