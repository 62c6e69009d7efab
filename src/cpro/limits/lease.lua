-- One call per user for all buckets of an operation: settle, report, grant. The rules: docs/leases.md.
--
-- KEYS[1]  the user's state, msgpack: {1, bucket...}; a bucket that is not there is full.
--          bucket = {id, gone_s, at_us, full, available, lease...}; lease = six values in a row:
--          id, sequence, granted, returned, outstanding, µs from at_us to its expiry.
-- ARGV[1]  packed by redis_store.py: act, need, score, lease_us; then for every bucket what is unpacked below.
-- Answer   {stale, operations granted, wait_us (-1: never), (granted, extra, left, seen)...}
--
-- `full` and `available` are in units: a token is `cost` of them, and `accrual` accrue in a µs. What is outstanding is
-- in tokens. All are integers below 2^53. Only refill creates anything, and it stops where available + outstanding
-- reaches full; the rest of this moves tokens from one pile to another, so no request, however odd, can break that.
-- Redis 6.2 commands only. Replicas and the AOF get the effect: one SET, with its expiry.
local floor, ceil, min, max, call = math.floor, math.ceil, math.min, math.max, redis.call
local NOBODY = '\0\0\0\0\0\0\0\0'

local clock = call('TIME')
local now_s = tonumber(clock[1])
local now_us = now_s * 1000000 + tonumber(clock[2])

-- What time did to a bucket, in time order: refill up to each event, then up to now. Events are expiries, whose tokens
-- count as spent, and the asker's spending of a while ago (`aged`, in total, at least `age_us` before it asked): tokens
-- it is known to have spent by then stop holding up refill from then on.
local function settle(b, stored)
  local full, cost, accrual, record = b.full, b.cost, b.accrual, b.record
  local available, out, size, events = stored[5], 0, 5, nil
  if stored[4] ~= full then available = floor(available / stored[4] * full) end -- reloaded: the share used stays
  local elapsed_us, past_us = max(0, now_us - stored[3]), 0
  for i = 6, #stored, 6 do
    local id, tokens, left_us = stored[i], stored[i + 4], stored[i + 5] - elapsed_us
    out = out + tokens
    if left_us > 0 then
      if id == b.lease then
        b.own, b.seen = size, stored[i + 1]
        if b.seen < b.acked then accrual = 0 end -- writes were lost: this time may have been refilled before
        local aged = min(tokens, b.aged - (stored[i + 2] - stored[i + 3] - tokens))
        if aged > 0 then
          tokens, events = tokens - aged, events or {}
          events[#events + 1] = {max(0, elapsed_us - b.age_us), aged}
        end
      end
      record[size + 1], record[size + 2], record[size + 3] = id, stored[i + 1], stored[i + 2]
      record[size + 4], record[size + 5], record[size + 6] = stored[i + 3], tokens, left_us
      size = size + 6
    else
      events = events or {}
      events[#events + 1] = {stored[i + 5], tokens}
    end
  end
  if events then
    if events[2] then table.sort(events, function(x, y) return x[1] < y[1] end) end
    for j = 1, #events do
      available = max(0, min(available + (events[j][1] - past_us) * accrual, full - out * cost))
      past_us, out = events[j][1], out - events[j][2]
    end
  end
  b.size, b.available = size, max(0, min(available + (elapsed_us - past_us) * accrual, full - out * cost))
end

-- The holder's totals. What it holds and the store knows nothing of (lost writes, a clock that stepped) is taken from
-- what is available, as far as that goes; what it spent beyond all grants is charged.
local function report(b, lease_us)
  local own, record, available, cost, returned, tokens = b.own, b.record, b.available, b.cost, b.returned, 0
  local used = b.spent + returned
  if own then
    local before, balance = record[own + 5], record[own + 3] - used
    local back = max(0, min(returned - record[own + 4], before))
    tokens = max(0, min(before - back, balance))
    available = max(0, available + (back + min(0, balance)) * cost)
  else
    own = b.size
    b.own, b.size = own, own + 6
  end
  if b.held > tokens then
    local adopted = min(b.held - tokens, floor(available / cost))
    available, tokens = available - adopted * cost, tokens + adopted
  end
  b.available = available
  record[own + 1], record[own + 2], record[own + 3] = b.lease, b.sequence, used + tokens
  record[own + 4], record[own + 5], record[own + 6] = returned, tokens, lease_us
end

local state = call('GET', KEYS[1])
state = state and cmsgpack.unpack(state) or {1}
local args, unpack_struct, asked, count, is_stale, has_report = ARGV[1], struct.unpack, {}, 0, false, false
local act, need, score, lease_us, place = unpack_struct('<BI4dd', args)
while place <= #args do
  local id, lease, cost, accrual, full, sequence, acked, spent, aged, age_us, returned, held, extra
  id, lease, cost, accrual, full, sequence, acked, spent, aged, age_us, returned, held, extra, place =
    unpack_struct('<c8c8dddI4I4I4I4I4I4I4I4', args, place)
  local b = {
    lease = lease, cost = cost, accrual = accrual, full = full, sequence = sequence, acked = acked, spent = spent,
    aged = aged, age_us = age_us, returned = returned, held = held, extra = extra, size = 5, seen = 0, available = full, own = false,
    record = {id, 0, now_us, full, full, nil, nil, nil, nil, nil, nil}, -- room for a lease
  }
  for i = 2, #state do
    local stored = state[i]
    if stored and stored[1] == id then
      if stored[2] > now_s then settle(b, stored) end
      state[i] = false
    end
  end
  count = count + 1
  asked[count] = b
  if lease ~= NOBODY then
    has_report = true
    is_stale = is_stale or b.seen >= sequence
  end
end

-- Operations that wait are granted as many as every bucket has tokens for, and spent at once.
local granted = is_stale and 0 or need
for j = 1, count do
  local b = asked[j]
  if not is_stale and b.lease ~= NOBODY then report(b, lease_us) end
  granted = min(granted, floor(b.available / (b.cost * score)))
end

-- Extra is the same for all buckets that want some, and never more in one hand than an equal share of two thirds:
-- what is outstanding holds up refill until it is reported.
local most_extra = (is_stale or granted < need) and 0 or math.huge
for j = 1, count do
  local b = asked[j]
  b.available = b.available - granted * score * b.cost
  if b.own and b.extra > 0 then
    local share = floor(b.full / b.cost * 4 / (b.size - 5)) - b.record[b.own + 5] -- six values a lease
    most_extra = max(0, min(most_extra, share, floor(b.available / b.cost)))
  end
end

local answer, wait_us = {is_stale and 1 or 0, granted, 0, nil, nil, nil, nil}, 0
for j = 1, count do
  local b = asked[j]
  local own, record, cost, extra, total, at = b.own, b.record, b.cost, 0, 0, 4 * j
  if own then
    extra = min(b.extra, most_extra)
    total = record[own + 3] + extra
    record[own + 3], record[own + 5] = total, record[own + 5] + extra
  end
  local available = b.available - extra * cost
  record[5] = available
  if cost * score > b.full then wait_us = math.huge end
  wait_us = max(wait_us, ceil((cost * score - available) / b.accrual))
  answer[at], answer[at + 1], answer[at + 2], answer[at + 3] = total, extra, floor(available / cost), b.seen
end
answer[3] = wait_us < math.huge and wait_us or -1
if act == 0 or is_stale or (granted == 0 and not has_report) then return answer end

-- Value and expiry are written together (Redis formats a number with %.17g, which is exact). By `gone_s` a bucket is full
-- and has no lease: the same as an absent one.
local kept, size, last_s = {1}, 1, now_s
for i = 2, #state do
  local stored = state[i]
  if stored and stored[2] > now_s then
    size = size + 1
    kept[size], last_s = stored, max(last_s, stored[2])
  end
end
for j = 1, count do
  local b, longest_us = asked[j], 0
  local record = b.record
  for i = 11, b.size, 6 do longest_us = max(longest_us, record[i]) end
  record[2] = now_s + 2 + floor(((b.full - record[5]) / b.accrual + longest_us) / 1000000)
  kept[size + j], last_s = record, max(last_s, record[2])
end
call('SET', KEYS[1], cmsgpack.pack(kept), 'PX', (last_s - now_s) * 1000)
return answer
