-- Moves a user's two times on, never back, and has the key live for as long again.
-- KEYS[1]: the user's. ARGV[1]: active and online, Unix seconds, each 4 bytes, big-endian, 0 for none. ARGV[2]: ms.
-- The value is the same 8 bytes. Repeating a call, or making calls in another order, changes nothing.
local active, online = struct.unpack('>I4I4', ARGV[1])
local known = redis.call('GET', KEYS[1])
if known and #known == 8 then
  local known_active, known_online = struct.unpack('>I4I4', known)
  active = math.max(active, known_active)
  online = math.max(online, known_online)
end
redis.call('SET', KEYS[1], struct.pack('>I4I4', active, online), 'PX', ARGV[2])
return 1
