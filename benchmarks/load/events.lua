-- Publish events as Centrifugo's proxy posts them: many users, Go's headers. Arguments: path, number of users.

local requests, following = {}, 0

function init(args)
  local path, users = args[1], tonumber(args[2])
  local headers = {
    ["Host"] = "127.0.0.1:8001",
    ["User-Agent"] = "Go-http-client/1.1",
    ["Content-Type"] = "application/json",
    ["Cookie"] = "session=4f3a1d0e9b7c4a6f8e2d1c0b9a8f7e6d; theme=dark",
    ["X-Real-Ip"] = "203.0.113.24",
    ["Accept-Encoding"] = "gzip",
  }
  for user = 1, users do
    local body = string.format(
      '{"client":"9336a229-2400-4ebc-8c50-%012x","transport":"websocket","protocol":"json","encoding":"json",'
        .. '"user":"%d","channel":"chat:room%d","data":{"text":"Message %d, as people write them"}}',
      user, 100000 + user, user % 97, user)
    requests[user] = wrk.format("POST", path, headers, body)
  end
end

function request()
  following = following % #requests + 1
  return requests[following]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"faults":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
