-- One call per user for all buckets of an operation: settle, report, grant. The rules: docs/leases.md.
--
-- KEYS[1]  the user's state, msgpack: {1, bucket...}; a bucket that is not there is full.
--          bucket = {id, gone_s, at_us, full, available, lease...}; lease = six values in a row:
--          id, sequence, granted, returned, outstanding, µs from at_us to its expiry.
--          Of a stream (see below) outstanding is: room + STREAM * (pace + 32 * pace it wanted and did not get).
-- ARGV[1]  packed by redis_store.py: act, need, score, lease_us; then for every bucket what is unpacked below.
-- Answer   {stale, operations granted, wait_us (-1: never), (granted, extra, left, seen, pace)...}; extra is a stream's room; with
--          a pace of -1 (others have all) it is how many µs it takes until one of theirs has ended.
--
-- `full` and `available` are in units: a token is `cost` of them, and `accrual` accrue in a µs. What is outstanding is
-- in tokens. All are integers below 2^53. Only refill creates anything, and it stops where available + outstanding
-- reaches full; the rest of this moves tokens from one pile to another, so no request, however odd, can break that.
-- A stream is a smaller bucket cut out of this one, for a holder that found it empty: `pace` sixteenths of its refill and
-- `room` tokens of what it holds. Until it ends the rest refills so much slower, and up to so much less.
-- Redis 6.2 commands only. Replicas and the AOF get the effect: one SET, with its expiry.
local floor, ceil, min, max, call = math.floor, math.ceil, math.min, math.max, redis.call
local STREAM = 4294967296
local NOBODY = '\0\0\0\0\0\0\0\0'

local clock = call('TIME')
local now_s = tonumber(clock[1])
local now_us = now_s * 1000000 + tonumber(clock[2])

-- By how much a stream lasts longer for the store than for its holder.
local function surplus_us(b, pace)
  return floor(b.window_us / 2) + ceil(b.cost / b.accrual) * ceil(48 / pace)
end

-- What time did to a bucket, in time order: refill up to each event, then up to now. Events are expiries, whose tokens
-- count as spent, and the asker's spending of a while ago (`aged`, in total, at least `age_us` before it asked): tokens
-- it is known to have spent by then stop holding up refill from then on.
local function settle(b, stored)
  local full, cost, record = b.full, b.cost, b.record
  local available, accrual, out, size, events = stored[5], b.accrual, 0, 5, nil
  if stored[4] ~= full then available = floor(available / stored[4] * full) end -- reloaded: the share used stays
  local elapsed_us, past_us = max(0, now_us - stored[3]), 0
  for i = 6, #stored, 6 do
    local id, tokens, left_us, stream, share = stored[i], stored[i + 4], stored[i + 5] - elapsed_us, 0, 0
    if tokens >= STREAM then
      stream, tokens = floor(tokens / STREAM), tokens % STREAM
      share = ceil(b.accrual * (stream % 32) / 16)
      accrual = accrual - share
    end
    out = out + tokens
    if left_us > 0 then
      if id == b.lease then
        b.own, b.seen, b.stream = size, stored[i + 1], stream
        local aged = stream > 0 and 0 or min(tokens, b.aged - (stored[i + 2] - stored[i + 3] - tokens))
        if aged > 0 then
          tokens, events = tokens - aged, events or {}
          events[#events + 1] = {max(0, elapsed_us - b.age_us), aged, 0}
        end
      else
        b.others, b.paced = b.others + tokens, b.paced + stream % 32
        if stream % 32 > 0 then b.first_us = min(b.first_us, left_us - surplus_us(b, stream % 32)) end
        if stream >= 32 then b.short, b.wanted = b.short + 1, b.wanted + floor(stream / 32) end
      end
      record[size + 1], record[size + 2], record[size + 3] = id, stored[i + 1], stored[i + 2]
      record[size + 4], record[size + 5], record[size + 6] = stored[i + 3], tokens + stream * STREAM, left_us
      size = size + 6
    else
      events = events or {}
      events[#events + 1] = {stored[i + 5], tokens, share}
    end
  end
  local is_lost = b.own and b.seen < b.acked -- writes were lost: this time may have been refilled before
  if events then
    if events[2] then table.sort(events, function(x, y) return x[1] < y[1] end) end
    for j = 1, #events do
      local refill = is_lost and 0 or (events[j][1] - past_us) * max(0, accrual)
      available = max(0, min(available + refill, full - out * cost))
      past_us, out, accrual = events[j][1], out - events[j][2], accrual + events[j][3]
    end
  end
  local refill = is_lost and 0 or (elapsed_us - past_us) * max(0, accrual)
  b.size, b.available = size, max(0, min(available + refill, full - out * cost))
end

-- The holder's totals. What it holds and the store knows nothing of (lost writes, a clock that stepped) is taken from
-- what is available, as far as that goes; what it spent beyond all grants is charged.
local function report(b, lease_us)
  local own, record, available, cost, returned, tokens = b.own, b.record, b.available, b.cost, b.returned, 0
  local used = b.spent + returned
  if own and b.stream > 0 then -- what is in hand of it pays for operations that wait for another bucket
    local room = record[own + 5] % STREAM
    b.available = available + max(0, min(returned - record[own + 4], room)) * cost
    record[own + 2], record[own + 3], record[own + 4] = b.sequence, used, returned
    if b.held == 0 then record[own + 5], record[own + 6] = 0, lease_us end -- it is over
    return
  end
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

-- A stream for a holder whose operations the empty bucket refused: of what is free as much as it wants, but where others
-- want more than they have no more than an equal share. Where there is room for fewer than want some, they take turns.
local function lend(b)
  local record, own, tokens = b.record, b.own, floor(b.full / b.cost)
  local sharers, room = b.short + 1, tokens - b.others
  local free, share = 16 - b.paced, floor(16 / min(sharers, tokens))
  local pace = max(0, min(b.pace, max(free - b.wanted, min(free, share))))
  if room < 1 or (b.stream % 32 > 0 and tokens < sharers) then pace = 0 end
  room = pace > 0 and min(room, max(1, floor(tokens / sharers))) or 0
  record[own + 5] = room + STREAM * (pace + 32 * (b.pace - pace))
  record[own + 6] = b.window_us + (pace > 0 and surplus_us(b, pace) or 0)
  local tokens_now = min(room, floor(b.available / b.cost))
  record[own + 3] = record[own + 3] + tokens_now
  b.available = max(0, min(b.available - tokens_now * b.cost, b.full - (b.others + room) * b.cost))
  if pace == 0 then return b.first_us < math.huge and max(0, b.first_us) or 0, -1 end
  return room, pace
end

local state = call('GET', KEYS[1])
state = state and cmsgpack.unpack(state) or {1}
local args, unpack_struct, asked, count, is_stale, has_report = ARGV[1], struct.unpack, {}, 0, false, false
local act, need, score, lease_us, place = unpack_struct('<BI4dd', args)
while place <= #args do
  local id, lease, cost, accrual, full, sequence, acked, spent, aged, age_us, returned, held, extra, pace, window_us
  id, lease, cost, accrual, full, sequence, acked, spent, aged, age_us, returned, held, extra, pace, window_us, place =
    unpack_struct('<c8c8dddI4I4I4I4I4I4I4I4I4I4', args, place)
  local b = {
    lease = lease, cost = cost, accrual = accrual, full = full, sequence = sequence, acked = acked, spent = spent,
    aged = aged, age_us = age_us, returned = returned, held = held, extra = extra, pace = min(pace, 16), window_us = window_us,
    size = 5, seen = 0, available = full, own = false, stream = 0, others = 0, paced = 0, short = 0, wanted = 0, first_us = math.huge,
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
  if b.own and b.record[b.own + 5] >= STREAM then -- what came back of one that goes on may find no room
    b.available = max(0, min(b.available, b.full - (b.others + b.record[b.own + 5] % STREAM) * b.cost))
  elseif b.own and b.extra > 0 then
    local share = floor(b.full / b.cost * 4 / (b.size - 5)) - b.record[b.own + 5] -- six values a lease
    most_extra = max(0, min(most_extra, share, floor(b.available / b.cost)))
  end
end

local answer, wait_us = {is_stale and 1 or 0, granted, 0, nil, nil, nil, nil, nil}, 0
for j = 1, count do
  local b = asked[j]
  local own, record, cost, extra, total, pace, at = b.own, b.record, b.cost, 0, 0, 0, 5 * j - 1
  if own and not is_stale then
    extra = record[own + 5] < STREAM and min(b.extra, most_extra) or 0
    record[own + 3], record[own + 5] = record[own + 3] + extra, record[own + 5] + extra
    if b.pace > 0 and record[own + 5] == 0 then extra, pace = lend(b) end
    total = record[own + 3]
  elseif own then
    total = record[own + 3]
  end
  local available = pace == 0 and b.available - extra * cost or b.available
  record[5] = available
  if cost * score > b.full then wait_us = math.huge end
  wait_us = max(wait_us, ceil((cost * score - available) / b.accrual))
  answer[at], answer[at + 1], answer[at + 2], answer[at + 3] = total, extra, floor(available / cost), b.seen
  answer[at + 4] = pace
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
