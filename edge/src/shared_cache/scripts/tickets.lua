-- Keys of session tickets, sealed. ARGV: what the edge has as the present key and the next, or would have; a new one; after how many
-- seconds they are changed. One edge's word begins them, and each change is one: whoever asks first.
local KEPT = P .. ':tickets'
local now = tonumber(redis.call('TIME')[1])
local kept = redis.call('HMGET', KEPT, 'before', 'present', 'next', 'since')
if not kept[2] or not kept[3] then
  kept = { '', ARGV[1], ARGV[2], now }
elseif now - tonumber(kept[4]) >= tonumber(ARGV[4]) then
  -- The next is known to all by now.
  kept = { kept[2], kept[3], ARGV[3], now }
else
  return { kept[1], kept[2], kept[3] }
end
redis.call('HSET', KEPT, 'before', kept[1], 'present', kept[2], 'next', kept[3], 'since', kept[4])
redis.call('EXPIRE', KEPT, 3 * tonumber(ARGV[4]))
return { kept[1], kept[2], kept[3] }
