-- Says how far an edge has heard, which grants it its lease, and brings what it has not heard yet, and what certificate authorities
-- are to be shown.
-- ARGV: epoch, edge, turn, heard, how many purges at most.
local c = control()
if not c or c.epoch ~= ARGV[1] or c.seq < tonumber(ARGV[4]) then return { '', 0, {}, '' } end
redis.call('HSET', EDGES, ARGV[2], ARGV[3] .. ' ' .. ARGV[4])
local heard = {}
if c.seq > tonumber(ARGV[4]) then
  heard = redis.call('XRANGE', LOG, '(' .. ARGV[4] .. '-0', '+', 'COUNT', ARGV[5])
end
return { c.epoch, c.seq, heard, table.concat(redis.call('HVALS', P .. ':proofs'), '\n') }
