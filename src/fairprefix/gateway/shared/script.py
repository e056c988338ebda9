"""What Redis does in one step: take in a gateway's charges, refill if that is due, and tell the balances.

A refill is decided on settled values alone, and for all gateways: nobody who waits at any of them may have credit
left (`fairprefix.core.shared_ledger`). Whoever has not been heard of for the lease is taken not to have anybody
waiting. Numbers stay whole up to 2**53 service units.
"""

from __future__ import annotations

SYNC = """
local balances, gateways, weights = KEYS[1], KEYS[2], KEYS[3]
local me, serial, lease, quantum = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local wants, most, forget, peak = ARGV[5] == '1', tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local at = 9
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function list()
  local found, count = {}, tonumber(ARGV[at])
  at = at + 1
  for i = 1, count do
    found[i] = {ARGV[at], tonumber(ARGV[at + 1])}
    at = at + 2
  end
  return found
end
local charges, waiting = list(), list()

-- A report whose answer was lost is sent again: it counts once.
local before = redis.call('HGET', gateways, me)
if not before or cjson.decode(before).serial ~= serial then
  for _, charge in ipairs(charges) do
    redis.call('HINCRBY', balances, charge[1], string.format('%.0f', charge[2]))
  end
end
local names = {}
for i, pair in ipairs(waiting) do
  names[i] = pair[1]
  redis.call('HSET', weights, pair[1], string.format('%.0f', pair[2]))
end
redis.call('HSET', gateways, me, cjson.encode({at = now, serial = serial, peak = peak, names = names}))

local alive, others, queued = 0, 0, {}
local known = redis.call('HGETALL', gateways)
for i = 1, #known, 2 do
  local told = cjson.decode(known[i + 1])
  if told.at + forget * 1000 < now then
    redis.call('HDEL', gateways, known[i])
  elseif told.at + lease >= now then
    alive = alive + 1
    if known[i] ~= me then others = others + told.peak end
    for _, name in ipairs(told.names) do queued[name] = true end
  end
end

local function rounds(balance, share)
  if balance > 0 then return 0 end
  return math.floor(-balance / share) + 1
end
local function share(name) return quantum * tonumber(redis.call('HGET', weights, name) or '1') end
local function balance(name) return tonumber(redis.call('HGET', balances, name) or '0') end

local due = nil
if wants then
  for name in pairs(queued) do
    local needs = rounds(balance(name), share(name))
    if due == nil or needs < due then due = needs end
  end
end
if due and due > 0 then
  for name in pairs(queued) do redis.call('HINCRBY', balances, name, 0) end
  local all = redis.call('HGETALL', balances)
  local crowded = #all / 2 > most
  for i = 1, #all, 2 do
    local name, value = all[i], tonumber(all[i + 1])
    if value <= 0 then
      local part = share(name)
      local gained = math.min(due, rounds(value, part)) * part
      redis.call('HINCRBY', balances, name, string.format('%.0f', gained))
    elseif crowded and not queued[name] then
      -- Credit of whoever is away may be forgotten, debt may not.
      redis.call('HDEL', balances, name)
      redis.call('HDEL', weights, name)
    end
  end
  redis.call('HINCRBY', KEYS[4], 'rounds', string.format('%.0f', due))
end
for i = 1, 4 do redis.call('EXPIRE', KEYS[i], forget) end

local answer = {alive, others, tonumber(redis.call('HGET', KEYS[4], 'rounds') or '0')}
while at <= #ARGV do
  answer[#answer + 1] = redis.call('HGET', balances, ARGV[at]) or '0'
  at = at + 1
end
return answer
"""
