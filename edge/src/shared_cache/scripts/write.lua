-- Keeps a response, unless what it may have been fetched before was purged. ARGV: epoch, how far the edge had heard when its
-- fetch began, the resource's digest, its key, what it varies on, the variant's digest, when it was received (milliseconds),
-- digests, record, place of the body, its octets ('' where they lie beside it), time to live (milliseconds), most variants.
local c = control()
if not c or c.epoch ~= ARGV[1] then return 'lost' end
local began = tonumber(ARGV[2])
if c.seq < began then return 'lost' end
local hard, soft = newest(c, ARGV[8], ARGV[4], began)
if hard > began or soft > began then return 'purged' end
local resource, d = P .. ':r:' .. ARGV[3], ARGV[6]
local vary = redis.call('HGET', resource, 'vary')
-- Four or five fields a variant, and one for all.
local fields = redis.call('HLEN', resource)
local known = redis.call('HMGET', resource, d .. 's', d .. 'x')
if vary and (vary ~= ARGV[5] or (not known[1] and fields > 5 * (tonumber(ARGV[13]) - 1))) then
  local all = redis.call('HGETALL', resource)
  for i = 1, #all, 2 do
    if string.sub(all[i], -1) == 'x' then unlink_body(all[i + 1]) end
  end
  redis.call('UNLINK', resource)
elseif known[1] then
  local epoch, received = string.match(known[1], '^(%S+) %d+ (%d+)$')
  if epoch == c.epoch and tonumber(received) > tonumber(ARGV[7]) then return 'older' end
  unlink_body(known[2])
  redis.call('HDEL', resource, d .. 'b')
end
redis.call('HSET', resource, 'vary', ARGV[5], d .. 's', c.epoch .. ' ' .. ARGV[2] .. ' ' .. ARGV[7],
  d .. 'f', ARGV[8], d .. 'h', ARGV[9], d .. 'x', ARGV[10])
if #ARGV[11] > 0 then redis.call('HSET', resource, d .. 'b', ARGV[11]) end
if redis.call('PTTL', resource) < tonumber(ARGV[12]) then redis.call('PEXPIRE', resource, ARGV[12]) end
-- Whoever waits for it need not wait any longer.
redis.call('UNLINK', P .. ':f:' .. ARGV[3] .. ':', P .. ':f:' .. ARGV[3] .. ':' .. d)
return 'written'
