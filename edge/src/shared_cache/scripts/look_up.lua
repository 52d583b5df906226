-- A stored response and what has been purged since. ARGV: how far the edge has heard, the resource's digest, its key, the
-- variant's digest ('' to be told what it varies on), the edge, for how long others wait for it where it fetches (milliseconds).
local function nothing()
  if redis.call('HLEN', EDGES) > 2 then
    -- One edge fetches what none has; the others wait for it, as long as this lasts.
    local fetch = P .. ':f:' .. ARGV[2] .. ':' .. ARGV[4]
    if not redis.call('SET', fetch, ARGV[5], 'NX', 'PX', ARGV[6]) and redis.call('GET', fetch) ~= ARGV[5] then
      return { 'wait' }
    end
  end
  return { 'nothing' }
end

local c = control()
if not c or c.seq < tonumber(ARGV[1]) then return { 'lost' } end
local resource = P .. ':r:' .. ARGV[2]
local vary = redis.call('HGET', resource, 'vary')
if not vary then return nothing() end
if vary ~= '' and ARGV[4] == '' then return { 'varies', vary } end
local d = ARGV[4]
local v = redis.call('HMGET', resource, d .. 's', d .. 'f', d .. 'h', d .. 'b', d .. 'x')
if not v[1] or not v[2] or not v[3] or not v[5] then return nothing() end
local epoch, began = string.match(v[1], '^(%S+) (%d+) ')
if epoch == c.epoch then
  local hard, soft, at = newest(c, v[2], ARGV[3], tonumber(began))
  if hard <= tonumber(began) then
    if soft <= tonumber(began) then at = '' end
    return { 'found', at, v[3], v[5], v[4] }
  end
end
unlink_body(v[5])
redis.call('HDEL', resource, d .. 's', d .. 'f', d .. 'h', d .. 'b', d .. 'x')
return nothing()
